"""systemd is told how the agent is, and the watchdog is fed by the event loop and by nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.reports.systemd import Supervisor
from tests.harness import DEADLINE_S, wait_until


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(DEADLINE_S)

    def next(self) -> list[str]:
        """The lines of the next datagram."""
        return self._socket.recv(4096).decode().split("\n")

    def drain(self) -> int:
        """Read what has come up to now, and how many that was."""
        count = 0
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while self._socket.recv(4096):
                count += 1
        self._socket.settimeout(DEADLINE_S)
        return count

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@wantd-test-{os.getpid()}-{tmp_path.name}"


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    manager = Manager(address)
    yield manager
    manager.close()


def test_each_turn_of_its_life_is_told(manager: Manager, address: str) -> None:
    supervisor = Supervisor.of({"NOTIFY_SOCKET": address})
    supervisor.ready()
    assert manager.next() == ["READY=1"]
    supervisor.reloading()
    reloading, since = manager.next()
    assert reloading == "RELOADING=1"
    assert since.startswith("MONOTONIC_USEC=")
    supervisor.stopping()
    assert manager.next() == ["STOPPING=1"]
    supervisor.failed("two\nlines")
    assert manager.next() == ["STATUS=two lines"]


async def test_the_status_is_told_when_it_changes(manager: Manager, address: str) -> None:
    supervisor = Supervisor.of({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000", "WATCHDOG_PID": str(os.getpid())})
    status = "1 moving"
    serving = asyncio.create_task(supervisor.serve(lambda: status))
    try:
        assert await asyncio.to_thread(manager.next) == ["STATUS=1 moving", "WATCHDOG=1"]
        assert await asyncio.to_thread(manager.next) == ["WATCHDOG=1"]
        supervisor.note = "the new configuration is not used"
        while (lines := await asyncio.to_thread(manager.next)) == ["WATCHDOG=1"]:
            continue
        assert lines[0] == "STATUS=1 moving; the new configuration is not used"
    finally:
        serving.cancel()


async def test_a_wedged_loop_does_not_feed_the_watchdog(manager: Manager, address: str) -> None:
    supervisor = Supervisor.of({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000"})
    serving = asyncio.create_task(supervisor.serve(lambda: "fine"))
    await asyncio.to_thread(manager.next)
    fed_meanwhile: list[int] = []
    over = threading.Event()

    def watch() -> None:
        manager.drain()
        over.wait(0.1)  # a hundred times the pause between two feeds
        fed_meanwhile.append(manager.drain())

    watcher = threading.Thread(target=watch)
    watcher.start()
    watcher.join()  # on the event loop: this wedges it
    assert fed_meanwhile == [0]
    assert "WATCHDOG=1" in await asyncio.to_thread(manager.next)
    serving.cancel()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "1000"},
        {"WATCHDOG_USEC": "1000"},
    ],
)
async def test_outside_of_systemd_nothing_is_sent(environ: dict[str, str]) -> None:
    supervisor = Supervisor.of(environ)
    supervisor.ready()
    supervisor.stopping()
    await supervisor.serve(lambda: "fine")  # ends at once


async def test_a_watchdog_of_another_process_is_not_ours(manager: Manager, address: str) -> None:
    supervisor = Supervisor.of({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"})
    serving = asyncio.create_task(supervisor.serve(lambda: "fine"))
    assert await asyncio.to_thread(manager.next) == ["STATUS=fine"]
    serving.cancel()


def test_a_manager_that_is_gone_harms_nothing(tmp_path: Path) -> None:
    Supervisor.of({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready()


def test_the_agent_tells_it_all(manager: Manager, address: str, make_agent) -> None:  # type: ignore[no-untyped-def]
    agent = make_agent(NOTIFY_SOCKET=address, WATCHDOG_USEC="3000000")
    agent.start()
    agent.ready(agent.drop("qwen3").stem)
    agent.drop("nonsense", "no such model")
    told: list[str] = []
    wait_until(lambda: told.extend(manager.next()) or "STATUS=0 moving, 1 ready, 1 failed" in told, "the counts")
    assert told[0] == "READY=1"
    assert "WATCHDOG=1" in told
    agent.stop()
    wait_until(lambda: told.extend(manager.next()) or "STOPPING=1" in told, "that it stops")
