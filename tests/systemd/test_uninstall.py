"""Uninstalling leaves models and wants where they are, and nothing else."""

from __future__ import annotations

import os
import stat

from tests.harness import wait_until
from tests.hub.process import HubProcess
from tests.systemd.conftest import MODEL, SPOOL, STORE, WANTD, configure, is_right, want
from tests.systemd.machine import Machine


def files(machine: Machine) -> set[str]:
    """What has been written and is there, outside of homes, programs and logs."""
    found = set(machine.shell("find /run -maxdepth 1").stdout.splitlines())
    for place in ("etc", "usr", "var", "srv"):
        for folder, folders, names in os.walk(f"{machine.written}/{place}"):
            inside = folder.removeprefix(machine.written)
            found |= {f"{inside}/{name}" for name in (*folders, *names) if not _is_whiteout(f"{folder}/{name}")}
    return {path for path in found if not path.startswith("/var/log/")}


def _is_whiteout(path: str) -> bool:
    """How an overlay notes that a file of the layer below is gone: a device 0/0."""
    info = os.lstat(path)
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def test_uninstalling_leaves_models_and_wants_and_nothing_else(installed: Machine, hub: HubProcess) -> None:
    installed.run(WANTD, "uninstall-service")
    before = files(installed)

    installed.run(WANTD, "install-service")
    installed.run("usermod", "-aG", "wantd-producers", "alice")
    configure(installed, hub)
    installed.systemctl("enable", "--now", "wantd")
    installed.shell(f"echo qwen3:Q8_0 > {SPOOL}/whole.want", user="alice")
    ready = installed.wait(f"{SPOOL}/whole.want", "ready")
    configure(installed, hub, "[transfer]\nmax_rate = 1_000_000")
    installed.systemctl("reload", "wantd")
    wait_until(lambda: "configuration reloaded" in installed.journal("-u", "wantd"), "the rate is in force")
    installed.wait(want(installed, path=f"{SPOOL}/half.want"), "downloading", done=1)
    installed.shell(f"mkdir {SPOOL}/team; echo x > {SPOOL}/team/a.want", user="alice")
    installed.wait(f"{SPOOL}/team/a.want", "failed")
    planned = installed.run(WANTD, "uninstall-service", "--dry-run").stdout
    assert "would remove" in planned
    assert installed.systemctl("is-active", "wantd").stdout.strip() == "active"

    said = installed.run(WANTD, "uninstall-service").stdout
    assert "removed    /etc/wantd/config.toml" in said
    assert installed.systemctl("is-active", "wantd", check=False).stdout.strip() == "inactive"
    assert installed.show("wantd", "LoadState")["LoadState"] == "not-found"
    model = ready["models"][0]["path"].rpartition("/")[0]
    wants = {f"{SPOOL}/{name}" for name in ("whole.want", "half.want", "team", "team/a.want")}
    left = {path for path in files(installed) - before if not path.startswith(f"{model}/")}
    assert left == {SPOOL, "/var/lib/wantd", STORE, model} | wants
    assert is_right(installed, hub, ready)
    for database in ("passwd", "group"):
        assert "wantd" not in installed.run("getent", database).stdout
    loose = installed.shell(f"find {STORE} {SPOOL} -nouser -o -nogroup -o -perm /022").stdout.split()
    assert loose == [], "somebody may change what stays, or will when the next user is made"
    assert installed.shell(f"touch {SPOOL}/n.want", user="alice", check=False).returncode

    again = installed.run(WANTD, "uninstall-service").stdout
    assert "removed " not in again.replace("removed    0 progress files", "")


def test_installed_again_it_serves_what_was_left(installed: Machine, hub: HubProcess) -> None:
    installed.systemctl("start", "wantd")
    path = want(installed)
    installed.wait(path, "ready")
    installed.run(WANTD, "uninstall-service")
    installed.run(WANTD, "install-service")
    configure(installed, hub)
    sent = sum(hub.stats()["bytes_sent"].values())
    installed.systemctl("start", "wantd")
    answer = installed.wait(path, "ready")
    assert answer["models"][0]["source"] == "store"
    assert sum(hub.stats()["bytes_sent"].values()) == sent
    assert installed.run("stat", "-c", "%U", MODEL).stdout.strip() == "wantd"
