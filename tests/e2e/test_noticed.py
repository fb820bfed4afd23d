"""What the kernel tells is acted on at once, not at the next rescan: a touch, a removed model, a watch that died."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import AgentProcess, wait_until
from tests.hub.process import HubProcess

NEVER_S = 3600  # interval of a rescan that is not to help


@pytest.fixture
def patient(make_agent: Callable[..., AgentProcess]) -> AgentProcess:
    """An agent that does not rescan."""
    agent = make_agent(scheduler__rescan_s=NEVER_S)
    agent.start()
    return agent


def test_a_failed_want_whose_times_alone_are_set_is_tried_again(patient: AgentProcess) -> None:
    path = patient.drop("wrong", "no-such-model")
    patient.failed("wrong")
    os.utime(path)
    wait_until(lambda: (patient.progress("wrong") or {}).get("attempt") == 2, "a second attempt")


def test_get_on_a_failed_want_is_answered_at_once_and_says_nothing_of_a_missing_agent(patient: AgentProcess) -> None:
    first = patient.wantd("get", "no-such-model")
    second = patient.wantd("get", "no-such-model")
    assert first.returncode == second.returncode != 0
    assert "no-such-model" in second.stderr
    assert "agent" not in second.stderr, second.stderr


def test_get_says_that_no_agent_runs_only_where_none_does(make_agent: Callable[..., AgentProcess]) -> None:
    agent = make_agent(scheduler__rescan_s=NEVER_S)
    alone = agent.wantd("get", "qwen3", "--timeout", "4")
    assert "no agent serves" in alone.stderr
    agent.start()
    # A want that is never read: the agent is there, and silent about it.
    with subprocess.Popen(
        [sys.executable, "-c", "import sys, time; f = open(sys.argv[1], 'w'); print(flush=True); time.sleep(60)",
         str(agent.spool / "tinyllama.want")], stdout=subprocess.PIPE,
    ) as writer:  # fmt: skip
        assert writer.stdout
        writer.stdout.readline()
        os.kill(agent.pid, 19)  # SIGSTOP
        said = agent.wantd("get", "tinyllama", "--timeout", "4").stderr
        os.kill(agent.pid, 18)  # SIGCONT
        writer.kill()
    assert "no agent serves" not in said
    assert "has not written a progress file" in said


def _repo(hub: HubProcess, number: int) -> None:
    hub.commit(f"noticed/m{number}", {"m-Q4_K_M.gguf": bytes([number]) * 1000})


@pytest.mark.parametrize("how", ["a file", "the record", "the directory", "a rename"])
def test_a_published_model_that_is_removed_is_fetched_again_at_once(
    how: str, make_agent: Callable[..., AgentProcess], hub: HubProcess
) -> None:
    _repo(hub, 1)
    agent = make_agent(scheduler__rescan_s=NEVER_S, policy__allow="any")
    with agent:
        agent.drop("one", "noticed/m1")
        path = Path(agent.ready("one"))
        hub.reset()
        if how == "a file":
            path.unlink()
        elif how == "the record":
            (path.parent / ".wantd.json").unlink()
        elif how == "the directory":
            shutil.rmtree(path.parent)
        else:
            path.rename(path.with_suffix(".away"))
        wait_until(lambda: "fetching what is wrong" in agent.log(), "the loss is noticed")
        record = path.parent / ".wantd.json"
        wait_until(lambda: path.exists() and record.exists(), "it is there again")
        agent.ready("one")


def test_a_model_that_was_in_the_store_at_the_start_is_watched_too(
    make_agent: Callable[..., AgentProcess], hub: HubProcess
) -> None:
    _repo(hub, 2)
    agent = make_agent(scheduler__rescan_s=NEVER_S, policy__allow="any")
    with agent:
        agent.drop("two", "noticed/m2")
        path = Path(agent.ready("two"))
    with agent:
        began = time.time()
        wait_until(lambda: "ready" in agent.log().rpartition(" serves ")[2] or time.time() - began > 1, "it has looked")
        path.unlink()
        wait_until(path.exists, "it is fetched again")


def test_a_storm_in_the_spool_delays_no_later_want_and_ends_in_no_traceback(patient: AgentProcess) -> None:
    storm = """
import os, shutil, sys
for turn in range(400):
    path = f"{sys.argv[1]}/d{turn}"
    os.makedirs(f"{path}/x/y")
    open(f"{path}/x/a.want", "w").close()
    os.rename(path, f"{path}-moved")
    shutil.rmtree(f"{path}-moved", ignore_errors=True)
"""
    folders = [patient.spool / f"user{number}" for number in range(4)]
    for folder in folders:
        folder.mkdir()
    running = [subprocess.Popen([sys.executable, "-c", storm, str(folder)]) for folder in folders]
    assert [process.wait() for process in running] == [0] * len(folders)
    patient.drop("after", "qwen3")
    patient.ready("after")
    (patient.spool / "user0" / "new").mkdir()
    patient.drop("user0/new/within", "qwen3")
    patient.ready("user0/new/within")
    assert patient.stop() == 0
    assert "Traceback" not in patient.log()
