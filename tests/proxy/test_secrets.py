"""The Hub token never reaches proxy or mirror, the balancer's key never the Hub: both searched for at the servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import AgentProcess
from tests.hub.access import TOKEN_GRANTED
from tests.hub.ledger import token_hash
from tests.hub.process import HubProcess
from tests.proxy.places import (
    GGUF_FILE,
    GGUF_REPO,
    Balancer,
    balanced_gguf,
    files_of,
    qwen3,
    the_hubs,
    wait_for_bytes,
    write_catalog,
)

KEY = "sk_thekeyoftheloadbalancer"
SIZE = 12_000_000

StartAgent = Callable[..., AgentProcess]


@pytest.fixture
def mirror() -> Iterator[HubProcess]:
    with HubProcess("--many", "1", "--gguf-size", str(SIZE)) as mirror:
        yield mirror


def test_token_and_key_stay_with_whom_they_are_for(
    start_agent: StartAgent,
    make_balancer: Callable[..., Balancer],
    make_hub: Callable[..., HubProcess],
    mirror: HubProcess,
    tmp_path: Path,
) -> None:
    repo = the_hubs(GGUF_REPO, gguf_size=SIZE, many=1)
    balancer = make_balancer(balanced_gguf(repo), key=KEY)
    catalog = write_catalog(tmp_path, qwen3(sha256=files_of(repo)[GGUF_FILE].sha256))
    secrets = {"HF_TOKEN": TOKEN_GRANTED, "LLM_RUNTIME_API_KEY": KEY}
    spoken: list[str] = []
    for name, proxy in (("with-balancer", balancer.url), ("with-mirror", mirror.endpoint)):
        hub = make_hub("--many", "1", "--gguf-size", str(SIZE))
        hub.fault("cdn/*", max_rate=3_000_000)
        agent = start_agent(
            hub.endpoint, name, proxy__url=proxy, catalog__path=catalog, proxy__report="true", **secrets
        )
        agent.drop("qwen3")
        wait_for_bytes(agent, 0)
        stats = hub.stats()
        hub.stop()
        agent.ready("qwen3")
        assert stats["seen_tokens"]["hub"] == [token_hash(f"Bearer {TOKEN_GRANTED}")]
        assert not stats["seen_tokens"]["cdn"]
        assert not [seen for seen in stats["recent"] if "registry" in seen["path"]]
        agent.stop()
        spoken += [agent.log(), *(path.read_text() for path in agent.spool.iterdir())]
        spoken += [path.read_text() for path in (agent.store / "qwen3").glob("*.json")]
        spoken += [path.read_text() for path in (agent.store / "qwen3").glob(".*.json")]
    heard = {headers["Authorization"] for headers in balancer.it.seen_headers if "Authorization" in headers}
    assert heard == {f"Bearer {KEY}"}
    assert TOKEN_GRANTED not in json.dumps(balancer.it.seen_headers)
    assert mirror.stats()["bytes_sent"][f"{GGUF_REPO}/{GGUF_FILE}"]
    tokens = {seen["path"] for seen in mirror.stats()["recent"] if seen["authorized"]}
    assert tokens <= {"/api/models/sync-state"}  # a report goes to the proxy's own origin, with its own key
    assert set(mirror.stats()["seen_tokens"]["hub"]) <= {token_hash(f"Bearer {KEY}")}
    for secret in (KEY, TOKEN_GRANTED):
        assert secret not in "\n".join(spoken)
