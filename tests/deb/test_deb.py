"""The Debian package, in a booted Debian: installed, used by another user, upgraded in mid-download, purged."""

from __future__ import annotations

from pathlib import Path

from tests.deb.conftest import MODEL_BYTES, NEXT_VERSION
from tests.hub.process import HubProcess
from tests.systemd.conftest import CONFIG, SPOOL, STORE, give, is_right, want
from tests.systemd.machine import Machine

HALF = MODEL_BYTES // 2
RESUMED = MODEL_BYTES * 3 // 4  # the other half, and at most a range for each connection once more
INSTALL = ("apt-get", "install", "--yes", "-o", "Dpkg::Options::=--force-confold")


def test_from_install_to_purge(machine: Machine, hub: HubProcess, packages: list[Path]) -> None:
    now, following = (give(machine, package, "/root/debs") for package in packages)
    installed = machine.run(*INSTALL, now, timeout=240, DEBIAN_FRONTEND="noninteractive")
    assert "usermod -aG wantd-producers NAME" in installed.stdout
    assert machine.run("wantd", "--version").stdout.startswith("wantd ")
    assert machine.run("man", "-w", "wantd", check=False).stdout or machine.read("/usr/share/doc/wantd/copyright")
    assert machine.systemctl("is-active", "wantd", check=False).stdout.strip() == "inactive"

    config = f'{(machine.read(CONFIG) or "").rstrip()}\n[hub]\nendpoint = "{hub.endpoint}"\n[transfer]\n'
    machine.write(CONFIG, f'{config}max_rate = "12MB"\n')
    machine.run("useradd", "--create-home", "alice")
    machine.run("usermod", "-aG", "wantd-producers", "alice")
    machine.systemctl("start", "wantd")
    path = want(machine)
    machine.wait(path, "downloading", done=HALF)

    machine.write(CONFIG, f'{config}max_rate = "50kB"\n')  # still in mid-download after the upgrade
    machine.systemctl("reload", "wantd")
    hub.reset()
    machine.run(*INSTALL, following, timeout=240, DEBIAN_FRONTEND="noninteractive")
    going_on = machine.wait(path, "downloading", done=HALF)
    assert going_on["agent"]["version"] == NEXT_VERSION
    machine.write(CONFIG, f'{config}max_rate = "20MB"\n')
    machine.systemctl("reload", "wantd")
    answer = machine.wait(path, "ready", "failed")
    assert answer["state"] == "ready", answer["error"]
    assert answer["agent"]["version"] == NEXT_VERSION
    assert is_right(machine, hub, answer)
    assert sum(hub.stats()["bytes_sent"].values()) < RESUMED, "what was there was fetched again"
    model = answer["models"][0]["path"]
    assert machine.run("wantd", "get", "qwen3", user="alice").stdout.strip() == model
    assert "max_rate" in (machine.read(CONFIG) or ""), "the operator's configuration stays"

    machine.run("apt-get", "purge", "--yes", "wantd", timeout=240, DEBIAN_FRONTEND="noninteractive")
    assert machine.run("head", "-c", "4", model).stdout == "GGUF"
    assert machine.read(path) == "qwen3\n"
    assert machine.systemctl("is-active", "wantd", check=False).stdout.strip() == "inactive"
    for gone in ("/usr/bin/wantd", "/usr/lib/wantd", "/usr/share/wantd", "/etc/wantd"):
        assert machine.run("test", "-e", gone, check=False).returncode, gone
    assert machine.run("test", "-d", STORE).returncode == 0
    assert machine.run("test", "-d", SPOOL).returncode == 0
