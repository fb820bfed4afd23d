"""A service of one user: the main job, with nothing that belongs to root."""

from __future__ import annotations

from tests.harness import wait_until
from tests.hub.process import HubProcess
from tests.systemd.conftest import WANTD, configure, is_right
from tests.systemd.machine import Machine

HOME = "/home/carol"


def test_a_users_own_service_does_the_main_job(machine: Machine, hub: HubProcess) -> None:
    machine.run("loginctl", "enable-linger", "carol")
    uid = machine.run("id", "-u", "carol").stdout.strip()
    up = lambda: machine.systemctl("is-system-running", user="carol", check=False).stdout.strip()  # noqa: E731
    wait_until(lambda: up() in ("running", "degraded"), "carol's own systemd runs")
    runtime = {"XDG_RUNTIME_DIR": f"/run/user/{uid}"}
    machine.run(WANTD, "install-service", "--user", user="carol", **runtime)
    unit = f"{HOME}/.local/share/systemd/user/wantd.service"
    verified = machine.run("systemd-analyze", "verify", "--user", unit, user="carol", **runtime)
    assert verified.stdout + verified.stderr == ""
    configure(machine, hub, path=f"{HOME}/.config/wantd/config.toml")
    machine.systemctl("enable", "--now", "wantd", user="carol")
    machine.shell("echo qwen3 > ~/.llmlb/spool/qwen3.want", user="carol")
    answer = machine.wait(f"{HOME}/.llmlb/spool/qwen3.want", "ready", "failed")
    assert is_right(machine, hub, answer)
    assert answer["models"][0]["path"].startswith(f"{HOME}/.llmlb/models/qwen3/")
    said = {"StatusText": "0 moving, 1 ready, 0 failed", "WatchdogUSec": "30s"}
    wait_until(lambda: machine.show("wantd", *said, user="carol") == said, "its status counts")
    assert "qwen3 ready" in machine.journal("_SYSTEMD_USER_UNIT=wantd.service", "MODEL=qwen3")
    machine.run(WANTD, "uninstall-service", "--user", user="carol", **runtime)
    assert machine.systemctl("is-active", "wantd", user="carol", check=False).stdout.strip() != "active"
    assert machine.read(unit) is None
    assert machine.read(f"{HOME}/.llmlb/spool/qwen3.want") == "qwen3\n"
    assert is_right(machine, hub, answer)
