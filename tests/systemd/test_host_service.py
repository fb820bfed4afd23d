"""A service of the host, in a real systemd: it starts, serves those who may, and survives what happens to it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from agent.errors import Exit
from tests.harness import wait_until
from tests.hub.process import HubProcess
from tests.systemd.conftest import (
    CONFIG,
    MODEL,
    MODEL_BYTES,
    NEXT_VERSION,
    SPOOL,
    STORE,
    WANTD,
    configure,
    give,
    is_right,
    want,
)
from tests.systemd.machine import Machine

HALF = MODEL_BYTES // 2
RESUMED = MODEL_BYTES * 3 // 4  # the other half, and at most a range for each connection once more
SLOW = "[transfer]\nmax_rate = 12_000_000"  # five seconds for the model: time to do something to the agent
STOP_S = 5.0  # what docs/protocol.md promises of SIGTERM


def status(machine: Machine) -> str:
    return machine.show("wantd", "StatusText")["StatusText"]


def restarts(machine: Machine) -> int:
    return int(machine.show("wantd", "NRestarts")["NRestarts"])


def is_active(machine: Machine) -> bool:
    return machine.systemctl("is-active", "wantd", check=False).stdout.strip() == "active"


def half_way(machine: Machine, hub: HubProcess) -> str:
    """A want that is half done, slowly."""
    configure(machine, hub, SLOW)
    machine.systemctl("start", "wantd")
    path = want(machine)
    machine.wait(path, "downloading", done=HALF)
    return path


def finish(machine: Machine, hub: HubProcess, path: str) -> None:
    """Wait for the model; what was there already was not fetched again."""
    answer = machine.wait(path, "ready", "failed")
    assert answer["state"] == "ready", answer
    assert is_right(machine, hub, answer)


def test_the_unit_is_sound_and_hardened(installed: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    unit = installed.show("wantd", "FragmentPath")["FragmentPath"]
    verified = installed.run("systemd-analyze", "verify", unit)
    assert verified.stdout + verified.stderr == ""
    table = installed.run("systemd-analyze", "security", "--offline=yes", unit).stdout
    score = re.search(r"Overall exposure level for wantd.service: ([0-9.]+)", table)
    assert score, table
    with capsys.disabled():
        print(f"\n{score[0]}")
    assert float(score[1]) <= 1.5, table
    assert installed.show("wantd", "RestartPreventExitStatus")["RestartPreventExitStatus"] == str(int(Exit.CONFIG))


def test_installing_again_changes_nothing(installed: Machine) -> None:
    said = installed.run(WANTD, "install-service").stdout
    assert "wrote" not in said
    assert "made" not in said
    assert f"kept       {CONFIG}" in said


def test_it_starts_at_boot_says_how_it_is_and_brings_a_producers_model(installed: Machine, hub: HubProcess) -> None:
    installed.systemctl("enable", "--now", "wantd")
    assert is_active(installed)
    assert installed.systemctl("is-enabled", "wantd").stdout.strip() == "enabled"
    wait_until(lambda: status(installed) == "0 moving, 0 ready, 0 failed", "its status says that it is idle")
    answer = installed.wait(want(installed), "ready", "failed")
    assert is_right(installed, hub, answer)
    installed.shell(f"echo no-such-model > {SPOOL}/other.want", user="alice")
    wait_until(lambda: status(installed) == "0 moving, 1 ready, 1 failed", "its status counts")
    pid = installed.show("wantd", "MainPID")["MainPID"]
    uids = installed.run("stat", "-c", "%U:%G", f"/proc/{pid}").stdout.strip()
    assert uids == "wantd:wantd"
    assert re.search(r"CapBnd:\s+0+\n", installed.read(f"/proc/{pid}/status") or "")


def test_wants_from_before_the_start_are_served(installed: Machine, hub: HubProcess) -> None:
    path = want(installed)
    installed.systemctl("start", "wantd")
    finish(installed, hub, path)


def test_the_model_is_everybodys_to_read_and_nobodys_to_change(service: Machine) -> None:
    path = service.wait(want(service), "ready")["models"][0]["path"]
    service.run("head", "-c", "4", path, user="mallory")
    for attempt in (f"echo x >> {path}", f"rm -f {path}", f"touch {MODEL}/x", f"mkdir {STORE}/x", f"rm -rf {MODEL}"):
        assert service.shell(attempt, user="alice", check=False).returncode, attempt


def test_only_the_group_may_ask_and_nobody_touches_what_is_anothers(service: Machine) -> None:
    refused = service.shell(f"echo qwen3 > {SPOOL}/m.want", user="mallory", check=False)
    assert refused.returncode
    assert "Permission denied" in refused.stderr
    path = want(service, "alice")
    service.wait(path, "ready")
    progress = path.replace(".want", ".progress")
    for attempt in (
        f"rm -f {path}",
        f"echo gpt > {path}",
        f"mv {path} {SPOOL}/n.want",
        f"touch {SPOOL}/o.want && mv -f {SPOOL}/o.want {path}",
        f"rm -f {progress}",
        f"echo x > {progress}",
        f"rm -rf {SPOOL}",
    ):
        assert service.shell(attempt, user="bob", check=False).returncode, attempt
    assert service.run("cat", path, progress, user="bob").stdout
    service.run("rm", path, user="alice")
    wait_until(lambda: service.read(progress) is None, "the answer to a want that is gone goes too")


@pytest.mark.parametrize("umask", ["002", "027", "077"])
def test_a_producers_umask_neither_hides_nor_opens_a_want(service: Machine, umask: str) -> None:
    service.shell(f"umask {umask}; echo qwen3 > {SPOOL}/u.want", user="alice")
    assert service.wait(f"{SPOOL}/u.want", "ready", "failed")["state"] == "ready"
    assert service.shell(f"echo x >> {SPOOL}/u.want", user="bob", check=False).returncode


def test_a_want_that_the_agent_may_not_read_says_so(service: Machine) -> None:
    service.shell(f"cd; umask 077; echo qwen3 > p.want; mv p.want {SPOOL}/", user="alice")
    error = service.wait(f"{SPOOL}/p.want", "failed")["error"]
    assert error["code"] == "want_unreadable"
    service.run("chmod", "644", f"{SPOOL}/p.want", user="alice")
    assert service.wait(f"{SPOOL}/p.want", "ready")


def test_a_producer_may_have_a_directory_of_its_own(service: Machine) -> None:
    service.run("mkdir", f"{SPOOL}/team", user="alice")
    path = want(service, "alice", f"{SPOOL}/team/qwen3.want")
    assert service.wait(path, "ready")
    assert service.shell(f"echo x > {SPOOL}/team/y.want", user="bob", check=False).returncode


def test_any_user_of_the_group_gets_a_path_from_the_command(service: Machine) -> None:
    got = service.run(WANTD, "get", "qwen3", user="alice")
    assert service.run("head", "-c", "4", got.stdout.strip(), user="mallory").stdout == "GGUF"
    status = service.run(WANTD, "status", user="mallory").stdout
    assert "agent   running" in status
    assert "1 ready" in status
    refused = service.run(WANTD, "get", "qwen3:Q8_0", user="mallory", check=False)
    assert refused.returncode
    assert "join the group" in refused.stderr


def test_a_spool_that_is_made_anew_is_served(service: Machine) -> None:
    service.run("rm", "-rf", SPOOL)
    service.run("systemd-tmpfiles", "--create", "wantd.conf")
    assert service.wait(want(service), "ready")


def test_the_journal_has_fields_for_model_and_want(service: Machine) -> None:
    path = want(service)
    service.wait(path, "ready")
    service.shell(f"echo '{{\"modell\": 1}}' > {SPOOL}/bad.want", user="alice")
    service.wait(f"{SPOOL}/bad.want", "failed")
    lines = service.journal("-u", "wantd", "MODEL=qwen3")
    assert "qwen3 ready" in lines
    assert re.search(r"qwen3 \d+%: ", lines)
    assert "qwen3 ready" in service.journal("-u", "wantd", f"WANT={path}")
    (bad,) = service.events("-u", "wantd", f"WANT={SPOOL}/bad.want")
    assert bad["CODE"] == "want_invalid"
    assert bad["PRIORITY"] == "4"
    assert "modell" in bad["MESSAGE"]
    assert {event["PRIORITY"] for event in service.events("-u", "wantd", "MODEL=qwen3")} == {"6"}


def test_killed_in_mid_download_it_is_restarted_and_goes_on(installed: Machine, hub: HubProcess) -> None:
    path = half_way(installed, hub)
    before = restarts(installed)
    installed.systemctl("kill", "--signal=KILL", "wantd")
    wait_until(lambda: restarts(installed) > before and is_active(installed), "systemd has restarted it")
    finish(installed, hub, path)
    assert sum(hub.stats()["bytes_sent"].values()) < HALF + RESUMED, "what was there was fetched again"


def test_the_watchdog_ends_an_agent_that_hangs(installed: Machine, hub: HubProcess) -> None:
    assert installed.show("wantd", "WatchdogUSec")["WatchdogUSec"] == "30s"
    installed.write("/etc/systemd/system/wantd.service.d/quick.conf", "[Service]\nWatchdogSec=3\nRestartSec=0")
    installed.systemctl("daemon-reload")
    path = half_way(installed, hub)
    before = restarts(installed)
    installed.systemctl("kill", "--signal=STOP", "wantd")
    wait_until(lambda: restarts(installed) > before and is_active(installed), "the watchdog has done its work")
    assert "Watchdog timeout" in installed.journal("-u", "wantd")
    finish(installed, hub, path)


def test_stopped_in_mid_download_it_drains_in_time_and_resumes(installed: Machine, hub: HubProcess) -> None:
    path = half_way(installed, hub)
    began = time.monotonic()
    installed.systemctl("stop", "wantd")
    assert time.monotonic() - began < STOP_S
    assert installed.show("wantd", "Result")["Result"] == "success"
    hub.reset()
    installed.systemctl("start", "wantd")
    finish(installed, hub, path)
    assert sum(hub.stats()["bytes_sent"].values()) < RESUMED, "what was there was fetched again"


def test_an_upgrade_goes_on_in_mid_file(
    installed: Machine, hub: HubProcess, pip: Callable[..., None], wheels: dict[str, Future[Path]]
) -> None:
    wheel = wheels["next"].result()
    path = half_way(installed, hub)
    installed.systemctl("stop", "wantd")
    hub.reset()
    pip("--no-deps", give(installed, wheel, "/opt/wantd.next.d"))
    installed.run(WANTD, "install-service")
    installed.systemctl("start", "wantd")
    answer = installed.wait(path, "ready")
    assert answer["agent"]["version"] == NEXT_VERSION
    assert is_right(installed, hub, answer)
    assert sum(hub.stats()["bytes_sent"].values()) < RESUMED, "what was there was fetched again"


def test_a_reload_takes_a_new_rate_without_dropping_a_byte(installed: Machine, hub: HubProcess) -> None:
    configure(installed, hub, "[transfer]\nmax_rate = 2_000_000")
    installed.systemctl("start", "wantd")
    path = want(installed)
    installed.wait(path, "downloading", done=1)
    pid = installed.show("wantd", "MainPID")["MainPID"]
    configure(installed, hub)
    installed.systemctl("reload", "wantd")
    finish(installed, hub, path)
    assert installed.show("wantd", "MainPID", "NRestarts") == {"MainPID": pid, "NRestarts": "0"}
    assert "configuration reloaded" in installed.journal("-u", "wantd", f"_PID={pid}")
    name = "bartowski/Qwen_Qwen3-0.6B-GGUF/Qwen_Qwen3-0.6B-Q4_K_M.gguf"
    size = hub.repos()["bartowski/Qwen_Qwen3-0.6B-GGUF"]["files"][name.rpartition("/")[2]]["size"]
    assert hub.stats()["bytes_sent"][name] == size


def test_a_reload_of_a_broken_configuration_changes_nothing_and_shows(service: Machine, hub: HubProcess) -> None:
    configure(service, hub, "[transfer]\nconections = 3")
    service.systemctl("reload", "wantd")
    wait_until(lambda: "conections" in status(service), "the status says what is wrong")
    assert is_active(service)
    configure(service, hub)
    service.systemctl("reload", "wantd")
    wait_until(lambda: status(service) == "0 moving, 0 ready, 0 failed", "the status is clean again")


def test_a_broken_configuration_fails_once_and_says_why(installed: Machine, hub: HubProcess) -> None:
    configure(installed, hub, "[transfer]\nconections = 3")
    assert installed.systemctl("start", "wantd", check=False).returncode
    shown = installed.show(
        "wantd", "ActiveState", "Result", "ExecMainStatus", "NRestarts", "StatusText", "InvocationID"
    )
    assert shown["ActiveState"] == "failed"
    assert (shown["Result"], shown["ExecMainStatus"], shown["NRestarts"]) == ("exit-code", str(int(Exit.CONFIG)), "0")
    assert "conections" in shown["StatusText"]
    (why,) = installed.events(f"_SYSTEMD_INVOCATION_ID={shown['InvocationID']}", "PRIORITY=2")
    assert "connections" in why["MESSAGE"]
