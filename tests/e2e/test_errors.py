"""Each error code, raised through the spool, with a message and a hint fit to act on."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness import AgentProcess, wait_until
from tests.hub.access import TOKEN_PLAIN
from tests.hub.process import HubProcess
from tests.hub.standard import PARTIAL


def refused_endpoint() -> str:
    """A loopback address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


FINAL: dict[str, tuple[str, dict[str, Any]]] = {
    "want_invalid": ('{"modle": "qwen3"}', {}),
    "want_too_large": ("#" * 1_100_000, {}),
    "model_not_supported": ("qwen33", {}),
    "model_not_found": ("wantd/no-such-repo", {"policy__allow": "any", "HF_TOKEN": TOKEN_PLAIN}),
    "revision_not_found": ("qwen3@no-such-branch", {}),
    "file_not_found": ("qwen3:Q9_X", {}),
    "ambiguous_file": ("wantd/no-default-quant", {"policy__allow": "any"}),
    "gated": ("wantd/gated", {"policy__allow": "any", "HF_TOKEN": TOKEN_PLAIN}),
    "unauthorized": ("wantd/private", {"policy__allow": "any"}),
    "token_invalid": ("qwen3", {"HF_TOKEN": "hf_wrong"}),
    "forbidden_format": ("wantd/torch-only", {"policy__allow": "any"}),
    "forbidden_path": ('{"model": "qwen3", "files": ["../*.gguf"]}', {}),
    "insufficient_space": ("qwen3", {"store__min_free_bytes": 10**15}),
}

HINTS = {
    "want_invalid": "model",
    "model_not_supported": "qwen3",
    "file_not_found": "Q4_K_M",
    "ambiguous_file": ":QUANT",
    "unauthorized": "HF_TOKEN",
    "forbidden_format": "policy.formats",
    "insufficient_space": "store.dir",
}


@pytest.mark.parametrize("code", FINAL)
def test_final_errors_come_through_the_spool(make_agent: Callable[..., AgentProcess], code: str) -> None:
    content, settings = FINAL[code]
    with make_agent(**settings) as agent:
        agent.drop("x", content)
        error = agent.failed("x")
        assert error["code"] == code, error
        assert not error["retryable"]
        assert HINTS.get(code, "") in error["hint"], error


def test_want_unreadable(agent: AgentProcess, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("qwen3")
    (agent.spool / "link.want").symlink_to(tmp_path / "outside")
    (agent.spool / "folder.want").mkdir()
    os.mkfifo(agent.spool / "fifo.want")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(agent.spool / "socket.want"))
        for name in ("link", "folder", "fifo", "socket"):
            assert agent.failed(name)["code"] == "want_unreadable"


def test_store_unwritable(make_agent: Callable[..., AgentProcess]) -> None:
    with make_agent() as agent:
        (agent.store / "qwen3").write_text("a file where the model's directory belongs")
        agent.drop("x", "qwen3")
        assert agent.failed("x")["code"] == "forbidden_path"
        partial = agent.store / ".partial"
        os.rename(partial, agent.store / ".partial-away")
        partial.write_text("")
        agent.drop("y", "qwen3-0.6b")
        assert agent.failed("y")["code"] == "store_unwritable"


def test_hub_protocol(agent: AgentProcess, hub: HubProcess) -> None:
    hub.fault("cdn/*", content_range="bytes 5-6/7")
    agent.drop("x", "qwen3")
    assert agent.failed("x")["code"] == "hub_protocol"


def test_checksum_mismatch_names_both_hashes_and_publishes_nothing(agent: AgentProcess, hub: HubProcess) -> None:
    hub.fault("cdn/*", flip_at=1000)
    agent.drop("x", "qwen3")
    error = agent.failed("x")
    assert error["code"] == "checksum_mismatch"
    repo = hub.repos()["bartowski/Qwen_Qwen3-0.6B-GGUF"]
    assert repo["files"]["Qwen_Qwen3-0.6B-Q4_K_M.gguf"]["sha256"] in error["message"]
    assert not (agent.store / "qwen3").exists()


def test_a_repository_that_was_uploaded_in_part_fails_and_names_the_missing_shard(
    make_agent: Callable[..., AgentProcess],
) -> None:
    with make_agent(policy__allow="any") as agent:
        agent.drop("x", PARTIAL)
        error = agent.failed("x")
        assert (error["code"], error["file"]) == ("file_not_found", "model-00002-of-00003.safetensors")
        assert not (agent.store / PARTIAL).exists()


def because(agent: AgentProcess, name: str, code: str) -> dict[str, Any]:
    """Wait until a want waits for its next try, for that reason."""

    def waits() -> dict[str, Any] | None:
        answer = agent.progress(name)
        waiting = (answer or {}).get("waiting") or {}
        found: dict[str, Any] = waiting.get("because") or {}
        return found if found.get("code") == code else None

    found: dict[str, Any] = wait_until(waits, f"{name} waits because of {code}")
    assert found["retryable"]
    assert found["hint"]
    return found


def test_hub_unreachable_is_tried_again_until_it_answers(make_agent: Callable[..., AgentProcess]) -> None:
    with make_agent(HF_ENDPOINT=refused_endpoint(), transfer__retry_min_s=0.1) as agent:
        agent.drop("x", "qwen3")
        because(agent, "x", "hub_unreachable")


def test_rate_limited_waits_for_the_time_that_the_hub_names(agent: AgentProcess, hub: HubProcess) -> None:
    hub.fault("hub/api/models/*", status=429, retry_after="3600", times=1)
    agent.drop("x", "qwen3")
    answer = agent.wait("x", "waiting")
    assert answer["waiting"]["for"] == "rate_limit"
    assert answer["waiting"]["until"] > answer["updated_at"]


def test_a_quota_that_is_used_up_is_waited_for_without_a_retry_after(agent: AgentProcess, hub: HubProcess) -> None:
    hub.configure(api_quota=0, window_s=300)
    agent.drop("x", "qwen3")
    answer = agent.wait("x", "waiting")
    assert answer["waiting"]["for"] == "rate_limit"
    assert hub.stats()["recent"][-1]["status"] == 429


def test_stalled_downloads_are_tried_again_and_end_well(
    make_agent: Callable[..., AgentProcess], hub: HubProcess
) -> None:
    hub.fault("cdn/*", stall_after=1_000)
    with make_agent(transfer__stall_timeout_s=0.3, transfer__retry_min_s=0.1, transfer__retry_max_s=0.3) as agent:
        agent.drop("x", "qwen3")
        because(agent, "x", "stalled")
        hub.clear_faults()
        agent.ready("x")


def test_a_model_that_is_not_in_the_catalog_makes_no_request(agent: AgentProcess, hub: HubProcess) -> None:
    """Issue 2, point 6."""
    agent.drop("x", "qwen33")
    error = agent.failed("x", deadline_s=1)
    assert error["code"] == "model_not_supported"
    assert "qwen3" in error["hint"]
    assert hub.stats()["requests"] == {}
    assert hub.stats()["recent"] == []


def test_a_broken_catalog_leaves_the_last_good_one_in_force(
    make_agent: Callable[..., AgentProcess], tmp_path: Path
) -> None:
    catalog = tmp_path / "catalog.json"
    entry = {"id": "one", "repo": "bartowski/Qwen_Qwen3-0.6B-GGUF", "recommended_filename": "Qwen_Qwen3-0.6B-Q8_0.gguf"}
    catalog.write_text(json.dumps([entry]))
    with make_agent(catalog__path=catalog) as agent:
        agent.drop("two", "two")
        assert agent.failed("two")["code"] == "model_not_supported"
        catalog.write_text("[{")
        wait_until(lambda: "cannot use the catalog" in agent.log(), "it says so")
        agent.drop("one", "one")
        agent.ready("one")
        # A want that failed for want of an entry is served when the entry comes.
        catalog.write_text(json.dumps([entry, {**entry, "id": "two"}]))
        wait_until(lambda: (agent.progress("two") or {}).get("state") == "ready", "two is ready")
