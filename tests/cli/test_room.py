"""`wantd ls`, `rm`, `gc` and `run-with`, with a running agent and without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.errors import Code, Exit
from tests.harness import AgentProcess, wait_until

MODEL = "qwen3"


def listed(agent: AgentProcess) -> dict[str, dict[str, Any]]:
    done = agent.wantd("ls", "--json")
    assert done.returncode == 0, done.stderr
    return {model["name"]: model for model in json.loads(done.stdout)["models"]}


def unwant(agent: AgentProcess, name: str) -> None:
    (agent.spool / f"{name}.want").unlink()
    if agent.process and agent.process.poll() is None:
        wait_until(lambda: agent.progress(name) is None, "it is not wanted any more")


@pytest.fixture(params=["running", "stopped"])
def store(request: pytest.FixtureRequest, agent: AgentProcess) -> AgentProcess:
    """An agent that has two models in its store, and runs, or has run."""
    for name in ("qwen3", "gemma3"):
        agent.drop(name)
        agent.ready(name)
    if request.param == "stopped":
        agent.stop()
    return agent


def test_ls_tells_sizes_and_who_keeps_what(store: AgentProcess) -> None:
    models = listed(store)
    assert sorted(models) == ["gemma3", "qwen3"]
    qwen3 = models["qwen3"]
    assert qwen3["wanted_by"] == [str(store.spool / "qwen3.want")] and qwen3["goes"] is None
    assert qwen3["bytes"] <= qwen3["frees_bytes"] < qwen3["bytes"] + 100_000
    assert os.path.exists(qwen3["path"])
    unwant(store, "qwen3")
    qwen3 = listed(store)["qwen3"]
    assert (qwen3["wanted_by"], qwen3["goes"]) == ([], 1)
    text = store.wantd("ls").stdout
    assert "qwen3" in text and "gemma3.want" in text and "2 models" in text


def test_rm_of_a_wanted_model_is_refused_and_names_the_wants(store: AgentProcess) -> None:
    store.drop("team/also", "Qwen3")
    done = store.wantd("rm", MODEL)
    assert done.returncode == Exit.FAILURE
    assert f"qwen3 stays: wanted by {store.spool}/" in done.stderr
    assert "qwen3.want" in done.stderr and "team/also.want" in done.stderr
    assert os.path.exists(store.store / "qwen3/.wantd.json")


def test_rm_removes_from_store_and_view_and_says_what_it_freed(store: AgentProcess) -> None:
    unwant(store, "qwen3")
    promised = listed(store)["qwen3"]["frees_bytes"]
    done = store.wantd("rm", MODEL, "--json")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    assert (result["state"], result["freed_bytes"], result["held_bytes"]) == ("removed", promised, 0)
    assert not (store.store / "qwen3").exists()
    assert not list((store.root / "hub").glob("models--*Qwen*"))
    assert list(listed(store)) == ["gemma3"]
    again = store.wantd("rm", MODEL)
    assert again.returncode == Exit.of(Code.MODEL_NOT_FOUND)
    assert "qwen3' is not in the store" in again.stderr


def test_a_model_that_was_removed_is_downloaded_when_it_is_wanted_again(agent: AgentProcess) -> None:
    agent.drop(MODEL)
    agent.ready(MODEL)
    unwant(agent, MODEL)
    assert agent.wantd("rm", MODEL).returncode == 0
    agent.drop(MODEL)
    wait_until(lambda: (agent.progress(MODEL) or {}).get("state") == "ready", "it is ready")
    wait_until(lambda: (agent.store / "qwen3/.wantd.json").exists(), "it is there")


def test_a_lease_holds_for_the_life_of_the_command(store: AgentProcess) -> None:
    unwant(store, "qwen3")
    held = store.root / "held"
    os.mkfifo(held)
    command = f"echo $WANTD_MODEL_PATH > {held}; cat {held} > /dev/null; exit 7"
    running = subprocess.Popen(
        [sys.executable, "-m", "agent", "run-with", MODEL, "--", "sh", "-c", command], env=store.environ, cwd=store.root
    )
    assert held.read_text().strip() == listed(store)["qwen3"]["path"]
    assert listed(store)["qwen3"]["leased"]
    refused = store.wantd("rm", MODEL)
    assert refused.returncode == Exit.FAILURE
    assert f"qwen3 stays: leased by {running.pid}" in refused.stderr
    held.write_text("end")
    assert running.wait(30) == 7
    assert store.wantd("rm", MODEL).returncode == 0


def test_run_with_needs_a_model_and_a_command(store: AgentProcess) -> None:
    assert store.wantd("run-with", "nothing-like-it", "--", "true").returncode == Exit.of(Code.MODEL_NOT_FOUND)
    assert store.wantd("run-with", MODEL).returncode == Exit.USAGE
    assert store.wantd("run-with", MODEL, "--", "no-such-command").returncode == 127


def test_gc_removes_what_is_due_and_a_dry_run_only_says_so(store: AgentProcess) -> None:
    unwant(store, "qwen3")
    nothing = store.wantd("gc")
    assert nothing.returncode == 0 and "no model is ever due" in nothing.stdout
    for path in (store.store / "qwen3").iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    store.set(store__keep_days=3)
    for dry in (["--dry-run"], []):
        done = store.wantd("gc", "--json", *dry)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert [(model["model"], model["reason"]) for model in found["models"]] == [("qwen3", "unused")]
        assert found["freed_bytes"] == found["models"][0]["freed_bytes"] > 6_000_000
        assert (store.store / "qwen3").exists() == bool(dry)
    assert (store.store / "gemma3").exists()


def test_a_want_pins_its_model_in_the_store_of_another_agent(
    make_agent: Callable[..., AgentProcess], tmp_path: Path
) -> None:
    one, two = make_agent("one"), make_agent("two", store=tmp_path / "one/models")
    with one, two:
        one.drop(MODEL)
        one.ready(MODEL)
    done = two.wantd("rm", MODEL)
    assert done.returncode == Exit.FAILURE
    assert f"wanted by {one.spool}/qwen3.want" in done.stderr


def test_gc_clears_what_crashes_left_and_partials_that_have_expired(make_agent: Callable[..., AgentProcess]) -> None:
    agent = make_agent()
    partial = agent.store / ".partial"
    (partial / "stage-qwen3~123456").mkdir(parents=True)
    (partial / "stage-qwen3~123456/m.gguf").write_bytes(bytes(8192))
    (agent.store / ".locks").mkdir()
    old, young = (partial / (name * 32 + ".part") for name in ("ab", "cd"))
    for path in (old, young):
        path.write_bytes(bytes(8192))
    os.utime(old, (1_700_000_000, 1_700_000_000))
    done = agent.wantd("gc", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["partials"], found["freed_bytes"]) == ([{"key": "ab" * 32, "freed_bytes": 8192}], 8192)
    assert list(partial.iterdir()) == [young]


def flip(path: Path, at: int) -> None:
    """Change one byte as a bad disk does: no time tells of it."""
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_verify_finds_one_flipped_byte_and_the_agent_repairs_what_is_wanted(
    make_agent: Callable[..., AgentProcess],
) -> None:
    with make_agent(scheduler__rescan_s=0.5) as agent:
        agent.drop(MODEL)
        path = Path(agent.ready(MODEL))
        done = agent.wantd("verify")
        assert (done.returncode, "none damaged" in done.stdout) == (0, True), done.stderr
        whole = path.read_bytes()
        with path.open("rb") as reader:
            flip(path, 3_000_000)
            broken = agent.wantd("verify", "--json")
            assert broken.returncode == Exit.FAILURE, broken.stderr
            (damaged,) = json.loads(broken.stdout)["damaged"]
            assert (damaged["model"], damaged["file"]) == ("qwen3", path.name)
            assert "its SHA-256 is" in damaged["why"]
            wait_until(lambda: path.exists() and path.read_bytes() == whole, "it is right again")
            assert len(reader.read()) == len(whole)  # who had it open still has it
        wait_until(lambda: agent.wantd("verify", MODEL).returncode == 0, "all is as published")


def test_verify_goes_on_where_it_was_interrupted_and_reads_again_what_has_changed(store: AgentProcess) -> None:
    notes = store.store / ".locks/.verify.json"
    right = {}
    for path in (store.store / "qwen3").glob("Qwen*.gguf"):
        info = path.stat()
        right[str(path)] = [info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns]
    notes.write_text(json.dumps(right))
    done = json.loads(store.wantd("verify", "--json").stdout)
    assert done["skipped_bytes"] == sum(stamp[1] for stamp in right.values()) > 0
    assert not notes.exists()
    for stamp in right.values():
        stamp[3] += 1
    notes.write_text(json.dumps(right))
    done = json.loads(store.wantd("verify", "--json").stdout)
    assert (done["skipped_bytes"], done["damaged"]) == (0, [])
