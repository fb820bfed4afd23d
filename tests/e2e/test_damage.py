"""What others do to the store: files overwritten in place, a model moved away, the store removed in mid-download."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import AgentProcess, wait_until
from tests.hub.process import HubProcess

GGUF = "bartowski/Qwen_Qwen3-0.6B-GGUF"
FILE = "Qwen_Qwen3-0.6B-Q4_K_M.gguf"
SAME = {"model": "qwen3", "files": ["*Q4_K_M.gguf"]}  # the same file, in a directory of its own


def damage(path: str, *, keep_mtime: bool = False) -> None:
    """4 KiB in the middle are others; the size is the same."""
    before = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(before.st_size // 2)
        file.write(os.urandom(4096))
    if keep_mtime:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def right(path: str, hub: HubProcess) -> bool:
    found: bool = hashlib.sha256(Path(path).read_bytes()).hexdigest() == hub.repos()[GGUF]["files"][FILE]["sha256"]
    return found


@pytest.mark.parametrize("keep_mtime", [False, True])
def test_damage_is_not_linked_into_another_model(
    make_agent: Callable[..., AgentProcess], hub: HubProcess, keep_mtime: bool
) -> None:
    with make_agent() as agent:
        agent.drop("one", "qwen3")
        one = agent.ready("one")
        (agent.spool / "one.want").unlink()
        damage(one, keep_mtime=keep_mtime)
        hub.reset()
        agent.drop("two", SAME)
        two = agent.ready("two")
        assert right(two, hub)
        assert not os.path.samefile(one, two)
        assert hub.stats()["bytes_sent"][f"{GGUF}/{FILE}"] >= os.path.getsize(two)
        assert "damaged in the store" in agent.log()
        agent.drop("again", "qwen3")
        assert right(agent.ready("again"), hub), "what is ready again is right again"


def test_damage_to_a_wanted_model_is_mended_by_the_next_rescan(
    make_agent: Callable[..., AgentProcess], hub: HubProcess
) -> None:
    with make_agent(scheduler__rescan_s=0.5) as agent:
        agent.drop("x", "qwen3")
        path = agent.ready("x")
        damage(path)
        wait_until(lambda: right(path, hub), "the right bytes are back")
        agent.ready("x")


def test_changed_times_alone_need_no_hub_and_damage_is_not_ready_without_one(
    make_agent: Callable[..., AgentProcess], hub: HubProcess
) -> None:
    agent = make_agent()
    with agent:
        agent.drop("x", "qwen3")
        path = agent.ready("x")
    os.utime(path)
    agent.set(hub__offline="true")
    hub.reset()
    with agent:
        agent.drop("y", "qwen3")
        assert agent.ready("y") == path
    damage(path)
    with agent:
        agent.drop("z", "qwen3")
        wait_until(lambda: "damaged in the store" in agent.log(), "it is hashed")
        answer = agent.wait("z", "waiting", "failed")
        assert answer["models"][0]["path"] is None
    assert hub.stats()["bytes_sent"] == {}
    agent.set(hub__offline="false")
    with agent:
        wait_until(lambda: (agent.progress("z") or {})["state"] == "ready", "it is fetched")
        assert right(path, hub)


def test_what_version_010_published_is_hashed_before_it_is_linked(
    make_agent: Callable[..., AgentProcess], hub: HubProcess
) -> None:
    agent = make_agent()
    with agent:
        agent.drop("one", "qwen3")
        one = agent.ready("one")
    for stamps in (agent.store / ".stamps").iterdir():
        stamps.unlink()
    hub.reset()
    with agent:
        agent.drop("two", SAME)
        assert os.path.samefile(one, agent.ready("two"))
        assert hub.stats()["bytes_sent"] == {}
        record = json.loads((Path(agent.ready("two")).parent / ".wantd.json").read_bytes())
        assert record["files"][0]["source"] == "store"


@pytest.mark.parametrize("what", ["the store", ".partial", "what is in .partial"])
def test_what_is_removed_while_bytes_come_is_noticed_before_any_rescan(
    make_agent: Callable[..., AgentProcess], hub: HubProcess, what: str
) -> None:
    hub.fault("cdn/*", max_rate=200_000)
    with make_agent(scheduler__rescan_s=3600, policy__allow="any") as agent:
        agent.drop("x", "qwen3")
        wait_until(lambda: ((agent.progress("x") or {}).get("bytes_done") or 0) > 100_000, "bytes come")
        gone = agent.store if what == "the store" else agent.store / ".partial"
        for path in [gone] if what != "what is in .partial" else list(gone.iterdir()):
            while path.exists():
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        wait_until(lambda: (agent.progress("x") or {})["attempt"] > 1, "it starts again")
        hub.clear_faults()
        assert right(agent.ready("x"), hub)
        again = agent.wantd("run")
        assert again.returncode != 0, "the spool is still this agent's"
        assert "another agent" in again.stderr


def test_a_model_that_was_moved_and_linked_back_gets_a_missing_file(
    make_agent: Callable[..., AgentProcess], tmp_path: Path
) -> None:
    with make_agent(policy__allow="any") as agent:
        agent.drop("x", "gpt-oss-20b")
        folder = Path(agent.ready("x"))
        away = tmp_path / "big" / "model"
        away.parent.mkdir()
        folder.rename(away)
        folder.symlink_to(away)
        agent.drop("y", "gpt-oss-20b")
        assert agent.ready("y") == str(folder)
        (folder / "config.json").unlink()
        agent.drop("z", "gpt-oss-20b")
        wait_until((away / "config.json").exists, "it comes back, where the model is now")
        agent.ready("z")
        assert folder.is_symlink()


def test_a_repository_in_the_place_of_a_catalogs_file_comes_beside_it(
    make_agent: Callable[..., AgentProcess], hub: HubProcess
) -> None:
    hub.commit("qwen3/model.gguf", {"other-Q4_K_M.gguf": b"GGUF of somebody"})
    with make_agent(policy__allow="any") as agent:
        agent.drop("theirs", "qwen3/model.gguf")
        assert agent.ready("theirs").startswith(f"{agent.store}/@/qwen3/model.gguf/")
        agent.drop("ours", "qwen3")
        assert right(agent.ready("ours"), hub)
        assert (agent.store / "qwen3" / "model.gguf").is_file()
