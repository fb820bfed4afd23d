"""One booted machine for these tests, and the package in two versions."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import CHECKOUT
from tests.hub.process import HubProcess
from tests.systemd.machine import Machine, copy_source

MODEL_BYTES = 64_000_000
NEXT_VERSION = "99.0"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The test waits for the machine to boot, and for pip."""
    for item in items:
        item.add_marker(pytest.mark.timeout(400))


@pytest.fixture
def hub() -> Iterator[HubProcess]:
    with HubProcess("--gguf-size", str(MODEL_BYTES)) as process:
        yield process


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    try:
        yield machine
    finally:
        machine.stop()


@pytest.fixture
def packages(tmp_path: Path) -> list[Path]:
    """This version and the next one, as `make deb` makes them."""
    built = []
    for version in (None, NEXT_VERSION):
        source = copy_source(tmp_path, version)
        command = [str(CHECKOUT / "deploy" / "deb" / "build"), str(source), str(tmp_path / "debs")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        built.append(Path(done.stdout.splitlines()[-1]))
    return built
