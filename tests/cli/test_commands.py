"""The commands as their users meet them."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import Code, Exit
from tests.harness import AgentProcess, clean_environment, wait_until
from tests.hub.process import HubProcess


def test_get_prints_the_path_on_standard_output_and_how_it_goes_beside(agent: AgentProcess) -> None:
    done = agent.wantd("get", "qwen3")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{agent.store}/qwen3/Qwen_Qwen3-0.6B-Q4_K_M.gguf\n"
    assert "qwen3: ready" in done.stderr
    assert agent.wantd("get", "qwen3", "gemma3").returncode == 0


def test_get_ends_with_the_errors_own_exit_code_and_its_hint(agent: AgentProcess) -> None:
    done = agent.wantd("get", "qwen33")
    assert done.returncode == Exit.of(Code.MODEL_NOT_SUPPORTED)
    assert done.stdout == ""
    assert "did you mean qwen3" in done.stderr
    again = agent.wantd("get", "qwen33")
    assert again.returncode == done.returncode


def test_get_ends_without_an_agent_and_says_what_to_do(make_agent: Callable[..., AgentProcess]) -> None:
    agent = make_agent()
    done = agent.wantd("get", "qwen3")
    assert done.returncode == Exit.NO_AGENT
    assert f"no agent serves {agent.spool}" in done.stderr
    assert "wantd run" in done.stderr
    assert (agent.spool / "qwen3.want").read_text() == "qwen3\n"


def test_get_waits_for_an_agent_where_it_is_told_to(make_agent: Callable[..., AgentProcess]) -> None:
    agent = make_agent()
    command = [sys.executable, "-m", "agent", "get", "qwen3", "--wait-for-agent"]
    with subprocess.Popen(command, env=agent.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as got:
        assert got.stderr
        assert "no agent serves" in got.stderr.readline()
        with agent:
            out, _ = got.communicate(timeout=60)
    assert got.returncode == 0
    assert out.startswith(str(agent.store))


def test_get_removes_a_failed_want_that_it_wrote_and_no_other(agent: AgentProcess) -> None:
    ours, theirs = agent.spool / "qwen33.want", agent.drop("mistral33", "mistral33\n")
    agent.wantd("get", "qwen33", "mistral33")
    assert not ours.exists()
    assert theirs.exists()
    agent.wantd("get", "qwen33", "--keep")
    assert ours.exists()


def test_get_takes_an_address_from_the_browser(make_agent: Callable[..., AgentProcess]) -> None:
    with make_agent(policy__allow="any") as agent:
        done = agent.wantd("get", "https://huggingface.co/bartowski/Qwen_Qwen3-0.6B-GGUF")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(".gguf\n")


def test_a_spool_that_cannot_be_written_has_an_error_of_its_own(make_agent: Callable[..., AgentProcess]) -> None:
    agent = make_agent()
    agent.spool.rmdir()
    agent.spool.write_text("not a directory")
    done = agent.wantd("get", "qwen3")
    assert done.returncode == Exit.of(Code.SPOOL_UNWRITABLE)
    assert "cannot write the want" in done.stderr
    assert "(spool_unwritable)" in done.stderr


def test_an_unknown_name_is_told_with_the_nearest_ones_also_where_any_model_is_allowed(
    make_agent: Callable[..., AgentProcess],
) -> None:
    with make_agent(policy__allow="any") as agent:
        done = agent.wantd("get", "qwen33")
    assert done.returncode in (Exit.of(Code.MODEL_NOT_FOUND), Exit.of(Code.UNAUTHORIZED))
    assert "did you mean qwen3" in done.stderr


def test_allow_writes_the_line_that_the_hint_names_and_the_refused_want_is_tried(
    make_agent: Callable[..., AgentProcess],
) -> None:
    agent = make_agent()
    config = agent.root / ".config" / "wantd" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("# mine\n[transfer]\njobs = 2\n")
    with agent:
        refused = agent.drop("other", "hf-internal-testing/no-such-model")
        error = agent.failed("other")
        assert error["code"] == "model_not_supported"
        assert "`wantd allow hf-internal-testing/no-such-model`" in error["hint"]
        assert f"in {config} " in error["hint"]
        done = agent.wantd("allow", "hf-internal-testing/*")
        assert done.returncode == 0, done.stderr
        assert f"reloaded the agent (pid {agent.pid})" in done.stdout
        assert config.read_text() == (
            '# mine\n[transfer]\njobs = 2\n\n[policy]\nallow = ["catalog", "hf-internal-testing/*"]\n'
        )
        answered = (Code.MODEL_NOT_FOUND, Code.UNAUTHORIZED)
        wait_until(lambda: agent.failed("other")["code"] in answered, "the Hub was asked")
        assert "already" in agent.wantd("allow", "hf-internal-testing/*").stdout
    assert refused.exists()


@pytest.mark.parametrize("cancel", [False, True])
def test_interrupting_get_leaves_the_want_unless_asked_to_remove_it(
    agent: AgentProcess, hub: HubProcess, cancel: bool
) -> None:
    hub.fault("cdn/*", max_rate=100_000)
    arguments = ["get", "qwen3"] + (["--cancel-on-interrupt"] if cancel else [])
    # A shell starts what it puts in the background with SIGINT ignored, and this suite may be such a thing.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "agent", *arguments]
    process = subprocess.Popen(command, env=agent.environ, stderr=subprocess.PIPE, text=True)
    with process:
        agent.wait("qwen3", "downloading")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == Exit.INTERRUPTED
        assert process.stderr
        said = process.stderr.read()
    assert (agent.spool / "qwen3.want").exists() is not cancel
    assert ("no longer wanted" if cancel else "still wanted") in said


def test_get_shows_a_live_bar_on_a_terminal(agent: AgentProcess, hub: HubProcess) -> None:
    hub.fault("cdn/*", max_rate=1_000_000)
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "agent", "get", "qwen3"],
        env={**agent.environ, "TERM": "xterm-256color", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=follower,
    )
    os.close(follower)
    shown = b""
    with process:
        while True:
            try:
                piece = os.read(leader, 4096)
            except OSError:
                break
            shown += piece
        assert process.wait(30) == 0
    os.close(leader)
    assert "━".encode() in shown
    assert b"MB/s" in shown
    assert b"ready" in shown


def test_status_says_what_is_wanted_with_and_without_an_agent(agent: AgentProcess) -> None:
    agent.drop("qwen3", "qwen3")
    agent.drop("bad", "qwen33")
    agent.ready("qwen3")
    agent.failed("bad")
    running = json.loads(agent.wantd("status", "--json").stdout)
    assert running["agent"]["running"]
    assert running["agent"]["pid"] == agent.pid
    assert running["counts"] == {"failed": 1, "ready": 1}
    assert [model["model"] for model in running["models"]] == ["qwen3"]
    assert agent.wantd("status").returncode == Exit.SOME_FAILED
    (agent.spool / "bad.want").unlink()
    wait_until(lambda: not (agent.spool / "bad.progress").exists(), "its progress file is removed")
    assert agent.wantd("status").returncode == Exit.OK
    agent.drop("bad", "qwen33")
    agent.failed("bad")
    agent.stop()
    agent.drop("new", "gemma3")
    stopped = agent.wantd("status")
    assert stopped.returncode == Exit.NO_AGENT
    assert "not running" in stopped.stdout
    assert "no agent serves this spool" in stopped.stdout
    assert "model_not_supported" in stopped.stdout


def test_check_says_what_is_wrong_and_how_to_mend_it(make_agent: Callable[..., AgentProcess], tmp_path: Path) -> None:
    agent = make_agent()
    good = agent.wantd("check")
    assert good.returncode == 0, good.stdout
    assert "flock works between processes" in good.stdout
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    agent.set(catalog__path=broken, HF_ENDPOINT="http://127.0.0.1:9")
    bad = agent.wantd("check")
    assert bad.returncode == Exit.FAILURE
    assert "BAD      catalog" in bad.stdout
    assert "BAD      Hub" in bad.stdout


def test_a_broken_configuration_is_told_whole_and_does_not_start(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[transfer]\nconections = 4\njobs = "many"\n[nonsense]\n')
    done = subprocess.run(
        [sys.executable, "-m", "agent", "run", "--config", str(config)],
        env=clean_environment(WANTD_LOCKS__HARTBEAT_S="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == Exit.CONFIG
    for said in ("conections", "connections", "jobs", "nonsense", "hartbeat_s", "heartbeat_s", str(config)):
        assert said in done.stderr


def test_hangup_reads_the_configuration_again_without_dropping_a_byte(
    make_agent: Callable[..., AgentProcess], hub: HubProcess, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[transfer]\nmax_rate = 300000\n")
    agent = make_agent()
    agent.environ["XDG_CONFIG_HOME"] = str(tmp_path)
    (tmp_path / "wantd").mkdir()
    config.rename(tmp_path / "wantd" / "config.toml")
    with agent:
        agent.drop("qwen3", "qwen3")
        wait_until(lambda: (agent.progress("qwen3") or {}).get("bytes_done"), "bytes have come")
        (tmp_path / "wantd" / "config.toml").write_text("[transfer]\nmax_rate = 0\n")
        os.kill(agent.pid, signal.SIGHUP)
        agent.ready("qwen3", deadline_s=15)
        (tmp_path / "wantd" / "config.toml").write_text("[transfer]\nmax_rat = 0\n")
        os.kill(agent.pid, signal.SIGHUP)
        wait_until(lambda: "keeping the old configuration" in agent.log(), "it says so")
        agent.drop("gemma", "gemma3")
        agent.ready("gemma")


def test_the_demo_goes_the_whole_way(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent", "demo", "--dir", str(tmp_path)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert os.path.getsize(done.stdout.strip()) > 90_000_000
