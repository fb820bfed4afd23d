"""What lies in the store afterwards, for wantd and for llmlb's node; and that the token is nowhere it must not be."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from tests.harness import AgentProcess, contents, wait_until
from tests.hub.access import TOKEN_GRANTED
from tests.hub.process import HubProcess


def test_a_gguf_lies_where_llmlbs_node_looks(agent: AgentProcess, hub: HubProcess) -> None:
    """The shape of `manifest.json` is what a node of llmlb reads (docs/hub.md)."""
    agent.drop("qwen3", "qwen3")
    path = Path(agent.ready("qwen3"))
    folder = agent.store / "qwen3"
    assert path.parent == folder
    assert os.path.samefile(path, folder / "model.gguf")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert manifest["format"] == "gguf"
    assert manifest["quantization"] == "Q4_K_M"
    by_name = {file["name"]: file for file in manifest["files"]}
    assert by_name["model.gguf"]["digest"] == by_name[path.name]["digest"] == digest
    record = json.loads((folder / ".wantd.json").read_bytes())
    assert record["repo"] == "bartowski/Qwen_Qwen3-0.6B-GGUF"
    facts = {"name": path.name, "size": path.stat().st_size, "sha256": digest, "source": "hub", "etag": digest}
    assert record["files"] == [facts]
    assert not (os.stat(path).st_mode & 0o022)


def test_sharded_safetensors_come_whole_with_their_index(agent: AgentProcess) -> None:
    agent.drop("x", "gpt-oss-20b")
    folder = Path(agent.ready("x"))
    index = json.loads((folder / "model.safetensors.index.json").read_bytes())
    assert set(index["weight_map"].values()) <= set(os.listdir(folder))
    assert (folder / "config.json").exists()


def test_a_split_set_and_a_projector_come_whole(agent: AgentProcess) -> None:
    agent.drop("split", "qwen2.5-7b-instruct-official")
    first = Path(agent.ready("split"))
    assert first.name.endswith("-00001-of-00002.gguf")
    assert (first.parent / first.name.replace("00001-of", "00002-of")).exists()
    agent.drop("vision", "gemma3")
    assert (Path(agent.ready("vision")).parent / "mmproj-model-f16.gguf").exists()


def test_a_file_that_another_model_has_is_linked_and_not_fetched(
    make_agent: Callable[..., AgentProcess], hub: HubProcess
) -> None:
    with make_agent(policy__allow="any") as agent:
        agent.drop("one", "qwen3")
        one = agent.ready("one")
        sent = hub.stats()["bytes_sent"]
        agent.drop("two", {"model": "qwen3", "files": ["*Q4_K_M.gguf"]})
        two = agent.ready("two")
        assert one != two
        assert os.path.samefile(one, two)
        assert hub.stats()["bytes_sent"] == sent


def test_one_id_may_be_the_beginning_of_another(
    make_agent: Callable[..., AgentProcess], hub: HubProcess, tmp_path: Path
) -> None:
    catalog = tmp_path / "catalog.json"
    repo = "bartowski/Qwen_Qwen3-0.6B-GGUF"
    entries = [
        {"id": "qwen/three", "repo": repo, "recommended_filename": "Qwen_Qwen3-0.6B-Q8_0.gguf"},
        {"id": "qwen", "repo": repo, "recommended_filename": "Qwen_Qwen3-0.6B-Q4_K_M.gguf"},
    ]
    for order in (entries, entries[::-1]):
        catalog.write_text(json.dumps(order))
        with make_agent(order[0]["id"].replace("/", "-"), catalog__path=catalog) as agent:
            paths = []
            for number, entry in enumerate(order):
                agent.drop(f"w{number}", entry["id"])
                paths.append(agent.ready(f"w{number}"))
            assert all(os.path.exists(path) for path in paths)


def test_the_token_is_nowhere_but_at_the_hub(make_agent: Callable[..., AgentProcess], hub: HubProcess) -> None:
    """Issue 2, point 11: searched for in logs, progress files, lock files, records, journals, and at both servers."""
    hub.fault("cdn/*", max_rate=1_000_000)
    agent = make_agent(HF_TOKEN=TOKEN_GRANTED, policy__allow="any", log__level="TRACE")
    with agent:
        agent.drop("private", "wantd/private")
        agent.drop("qwen3", "qwen3")
        agent.drop("missing", "wantd/no-such-repo")
        agent.drop("bad", "qwen3@no-such-revision")
        agent.wait("qwen3", "downloading")
        everything = [*contents(agent.root).values()]
        hub.clear_faults()
        agent.ready("qwen3")
        agent.ready("private")
        agent.failed("missing")
        agent.failed("bad")
        everything += [*contents(agent.root).values()]
        status = agent.wantd("status", "--json")
        check = agent.wantd("check")
    assert not [text for text in everything if TOKEN_GRANTED.encode() in text]
    for said in (status, check):
        assert TOKEN_GRANTED not in said.stdout + said.stderr
    seen = hub.stats()["seen_tokens"]
    assert hashlib.sha256(TOKEN_GRANTED.encode()).hexdigest() in str(seen["hub"])
    assert not seen.get("cdn")


def test_signed_urls_are_in_no_file_and_no_log(agent: AgentProcess, hub: HubProcess) -> None:
    hub.fault("cdn/*", status=503, times=3)
    agent.drop("qwen3", "qwen3")
    agent.ready("qwen3")
    everything = b"".join(contents(agent.root).values())
    assert b"Signature=" not in everything


def test_an_unwritable_place_beside_a_want_is_said_by_status(agent: AgentProcess) -> None:
    fits, too_long = "n" * 246, "n" * 250  # of 255 bytes .want takes 5, .progress 9
    (agent.spool / f"{too_long}.want").write_text("qwen3")
    (agent.spool / f"{fits}.want").write_text("qwen3")
    agent.ready(fits)
    wait_until(lambda: (agent.store / "qwen3" / ".wantd.json").exists(), "it is downloaded all the same")
    wait_until(lambda: "cannot write the progress file of" in agent.log(), "the log says so")
    said = json.loads(agent.wantd("status", "--json").stdout)
    [unanswered] = [want for want in said["wants"] if want["state"] == "unanswered"]
    assert "too long" in unanswered["why"]
