"""systemd is told how the agent is, and the watchdog is fed by the event loop and by nothing else."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.core.states import State
from agent.reports.systemd import Supervisor, counts_in_words
from tests.fakes import eventually, logged
from tests.manager import Manager


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


def test_counts_in_words() -> None:
    counts = Counter({State.QUEUED: 1, State.RESOLVING: 2, State.DOWNLOADING: 3, State.VERIFYING: 4, State.READY: 5})
    assert counts_in_words(counts) == "10 moving, 5 ready, 0 failed"
    counts += Counter({State.WAITING: 6, State.FAILED: 7})
    assert counts_in_words(counts) == "10 moving, 6 waiting, 5 ready, 7 failed"
    assert counts_in_words(Counter()) == "0 moving, 0 ready, 0 failed"


async def test_without_a_watchdog_only_the_status_is_told(manager: Manager, address: str) -> None:
    supervisor = Supervisor.of({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "0"})
    supervisor.note = "a note"
    serving = asyncio.create_task(supervisor.serve(lambda: "1\n moving"))
    assert await asyncio.to_thread(manager.next) == ["STATUS=1 moving; a note"]
    serving.cancel()


@pytest.mark.parametrize("environ", [{"WATCHDOG_USEC": "3000"}, {"WATCHDOG_USEC": "3000", "WATCHDOG_PID": ""}])
async def test_a_watchdog_for_any_process_is_fed(manager: Manager, address: str, environ: dict[str, str]) -> None:
    supervisor = Supervisor.of({"NOTIFY_SOCKET": address, **environ})
    serving = asyncio.create_task(supervisor.serve(lambda: ""))
    for _ in range(3):
        assert await asyncio.to_thread(manager.next) == ["WATCHDOG=1"]
    serving.cancel()


async def test_a_status_that_was_not_sent_is_sent_when_it_can_be(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    supervisor = Supervisor.of({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000"})
    with logged("WARNING") as lines:
        serving = asyncio.create_task(supervisor.serve(lambda: "fine"))
        await eventually(lambda: lines, "it could not be told")
    late = Manager(address)
    assert await asyncio.to_thread(late.next) == ["STATUS=fine", "WATCHDOG=1"]
    serving.cancel()
    late.close()
    assert lines[0] == "WARNING cannot tell systemd STATUS=fine: No such file or directory"
