"""One booted machine for all of these tests, with wantd installed as an operator installs it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.hub.process import HubProcess
from tests.systemd.machine import Machine, build_wheel

SYSTEM_PYTHON = "/usr/bin/python3"  # one of a home directory is out of sight for a service with ProtectHome
MODEL_BYTES = 64_000_000
SPOOL, STORE = "/var/spool/wantd", "/var/lib/wantd/models"
MODEL = f"{STORE}/qwen3"
CONFIG = "/etc/wantd/config.toml"
NEXT_VERSION = "99.0"
WANTD = "/opt/wantd/bin/wantd"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test waits for the machine to boot and for pip."""
    for item in items:
        item.add_marker(pytest.mark.timeout(240))


@pytest.fixture(scope="session")
def hub_process() -> Iterator[HubProcess]:
    """The Hub, on this machine's loopback, which is the container's too."""
    with HubProcess("--many", "20", "--gguf-size", str(MODEL_BYTES)) as process:
        yield process


@pytest.fixture
def hub(hub_process: HubProcess) -> HubProcess:
    """The Hub with its faults and counts taken back."""
    hub_process.clear_faults()
    hub_process.reset()
    return hub_process


@pytest.fixture(scope="session")
def pip(machine_only: Machine) -> Callable[..., None]:
    """The container's pip, which reaches the package index as this process does."""
    index = {name: value for name, value in os.environ.items() if name not in ("PATH", "HOME", "LANG")}
    index = {name: value for name, value in index.items() if not name.startswith("PYTHON")}

    def install(*what: str) -> None:
        machine_only.run("/opt/wantd/bin/pip", "install", "--quiet", *what, timeout=180, **index)

    return install


@pytest.fixture(scope="session")
def machine_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The booted machine."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    try:
        yield machine
    finally:
        machine.stop()


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Path]]]:
    """The package as it is, and its next version, built while the machine boots."""
    directory = tmp_path_factory.mktemp("wheels")
    with ThreadPoolExecutor(1) as pool:
        yield {
            "now": pool.submit(build_wheel, directory),
            "next": pool.submit(build_wheel, directory, NEXT_VERSION),
        }


@pytest.fixture(scope="session")
def machine(wheels: dict[str, Future[Path]], machine_only: Machine, pip: Callable[..., None]) -> Machine:
    """The machine with users, and the package in /opt/wantd."""
    machine = machine_only
    for user in ("alice", "bob", "mallory", "carol"):
        machine.run("useradd", "--create-home", "--shell", "/bin/sh", user)
    machine.run(SYSTEM_PYTHON, "-m", "venv", "/opt/wantd")
    pip(give(machine, wheels["now"].result(), "/opt/wantd.whl.d"))
    return machine


def give(machine: Machine, file: Path, directory: str) -> str:
    """Put a file into the container: its /tmp is its own."""
    machine.run("mkdir", "-p", directory)
    inside = f"{directory}/{file.name}"
    with file.open("rb") as source:
        Path(f"/proc/{machine.pid}/root{inside}").write_bytes(source.read())
    return inside


@pytest.fixture
def installed(machine: Machine, hub: HubProcess) -> Machine:
    """The service of the host in place, stopped, with empty spool, store and view and a configuration for the Hub."""
    machine.systemctl("stop", "wantd", check=False)
    of_service = f"/etc/systemd/system/wantd.service.d {CONFIG} /etc/credstore/hf_token"
    machine.shell(f"rm -rf {SPOOL}/* /var/lib/wantd/* {of_service}")
    machine.run(WANTD, "install-service")
    machine.run("usermod", "-aG", "wantd-producers", "alice")
    machine.run("usermod", "-aG", "wantd-producers", "bob")
    configure(machine, hub)
    machine.systemctl("reset-failed", "wantd", check=False)
    return machine


def configure(machine: Machine, hub: HubProcess, more: str = "", path: str = CONFIG) -> None:
    """The configuration that install-service wrote, with the Hub's endpoint and `more`."""
    written = (machine.read(path) or "").split("\n# test\n")[0]
    machine.write(path, f'{written}\n# test\n[hub]\nendpoint = "{hub.endpoint}"\n{more}')


@pytest.fixture
def service(installed: Machine) -> Machine:
    """The service, running."""
    installed.systemctl("start", "wantd")
    return installed


def want(machine: Machine, user: str = "alice", path: str = f"{SPOOL}/qwen3.want") -> str:
    """An ordinary user drops an ordinary want."""
    machine.shell(f"echo qwen3 > {path}", user=user)
    return path


def is_right(machine: Machine, hub: HubProcess, answer: dict[str, object]) -> bool:
    """Whether the published file is what the Hub has."""
    models = answer["models"]
    assert isinstance(models, list)
    path = models[0]["path"]
    files = hub.repos()[models[0]["repo"]]["files"]
    sha256 = machine.run("sha256sum", path).stdout.split()[0]
    return bool(sha256 == files[os.path.basename(path)]["sha256"])
