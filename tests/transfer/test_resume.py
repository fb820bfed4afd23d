"""What is on disk counts: after a kill, a power cut, a cancelled fetch, a full disk."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from agent.core.ranges import granule_for
from agent.disk import disk_errors
from agent.errors import Code, WantdError
from agent.transfer.journal import parse_journal
from agent.transfer.partial import Partial
from tests.transfer.helpers import MIB, Bench, Make, content, sha256
from tests.transfer.server import Manner

SIZE = 48 * MIB


def child(one: Bench, under: Sequence[str] = (), **streams: int) -> subprocess.Popen[bytes]:
    data = one.server.files["/file"]
    script = str(Path(__file__).with_name("child.py"))
    facts = [one.server.url("/file"), str(one.part), str(one.journal), str(len(data)), sha256(data)]
    root = str(Path(__file__).parents[2])
    environ = {**os.environ, "PYTHONPATH": root}
    return subprocess.Popen([*under, sys.executable, script, *facts], env=environ, **streams)


async def partly(one: Bench, share: float) -> None:
    """Fetch until this share is there, then cancel, and wait until the server has seen that too."""
    size = len(one.server.files["/file"])
    fetch = asyncio.ensure_future(one.fetch())
    async with asyncio.timeout(30):
        while not one.told or one.told[-1][0] < share * size:
            await asyncio.sleep(0.01)
    fetch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetch
    async with asyncio.timeout(5):
        while one.server.busy:
            await asyncio.sleep(0.01)


def claims(one: Bench) -> dict[int, int]:
    found = parse_journal(one.journal.read_bytes(), one.part.stat().st_size)
    assert found is not None
    return found[1]


def asked_since(one: Bench, before: int) -> set[int]:
    """The granules that requests after the first `before` asked for."""
    granule = granule_for(SIZE)
    return {
        start // granule
        for start, end in (asked.range for asked in one.server.asked[before:] if asked.range)
        for start in range(start, end, granule)
    }


def in_buffers(one: Bench) -> int:
    """Bytes between the server and whoever reads from it: sent and not read, in the kernel's queues (proc(5))."""
    port, queued = f"{one.server.port:04X}", 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        to_send, to_read = (int(queue, 16) for queue in queues.split(":"))
        queued += (to_send if local.endswith(f":{port}") else 0) + (to_read if remote.endswith(f":{port}") else 0)
    return queued


@pytest.mark.parametrize("seed", range(4))
async def test_kill_9_at_any_moment_costs_one_granule_a_connection_at_most(bench: Make, seed: int) -> None:
    one = bench(content(SIZE))
    one.server.manner = lambda _: Manner(rate=4 * MIB)
    kill_at = random.Random(seed).uniform(0.1, 0.9) * SIZE
    process = child(one)
    deadline = time.monotonic() + 30
    while one.server.sent < kill_at and time.monotonic() < deadline:
        await asyncio.sleep(0.005)
    process.send_signal(signal.SIGSTOP)  # it reads no more, so that what is in the buffers can be counted
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    sent = one.server.sent
    never_came = in_buffers(one)
    process.kill()
    process.wait()
    lanes, granule, claimed = one.server.most_open, granule_for(SIZE), claims(one)
    assert sent - len(claimed) * granule <= lanes * granule + never_came
    before = len(one.server.asked)
    one.server.manner = lambda _: Manner()
    await one.fetch()
    assert one.holds()
    assert not asked_since(one, before) & claimed.keys(), "what came whole is not asked for again"


async def test_resuming_fetches_five_percent_twice_at_most(bench: Make) -> None:
    one = bench(content(SIZE), connections=4)
    one.server.manner = lambda _: Manner(rate=8 * MIB)
    await partly(one, 0.5)
    one.server.manner = lambda _: Manner()
    await one.fetch()
    assert one.holds() and one.server.sent <= SIZE * 1.05


async def test_only_damaged_ranges_are_fetched_again(bench: Make) -> None:
    one = bench(content(SIZE))
    one.server.manner = lambda _: Manner(rate=8 * MIB)
    await partly(one, 0.6)
    granule = granule_for(SIZE)
    damaged = sorted(claims(one))[3:60:11]
    with open(one.part, "r+b") as file:
        for index in damaged:
            file.seek(index * granule + 77)
            file.write(b"power cut")
    intact = claims(one).keys() - set(damaged)
    before = len(one.server.asked)
    one.server.manner = lambda _: Manner()
    await one.fetch()
    assert one.holds()
    asked = asked_since(one, before)
    assert set(damaged) <= asked and not asked & intact


async def test_a_part_file_that_lost_its_end_is_not_believed_there(bench: Make) -> None:
    one = bench(content(SIZE))
    one.server.manner = lambda _: Manner(rate=8 * MIB)
    await partly(one, 0.6)
    os.truncate(one.part, 5 * MIB)
    one.server.manner = lambda _: Manner()
    await one.fetch()
    assert one.holds()


@pytest.mark.parametrize(
    "journal", [b"", b"\0" * 5000, b"{}\n", b'{"version":1}\n[0,0]\n', b"[" * 3000 + b"\n", os.urandom(4096)]
)
async def test_a_journal_of_garbage_is_no_journal(bench: Make, journal: bytes) -> None:
    one = bench(content(6 * MIB))
    one.part.write_bytes(content(3 * MIB))
    one.journal.write_bytes(journal)
    await one.fetch()
    assert one.holds()


async def test_a_journal_that_lies_about_every_range_is_found_out(bench: Make) -> None:
    one = bench(content(6 * MIB))
    one.server.manner = lambda _: Manner(rate=MIB)
    await partly(one, 0.5)
    granule = granule_for(6 * MIB)
    header = one.journal.read_bytes().split(b"\n")[0]
    one.journal.write_bytes(header + b"\n" + b"".join(b"[%d,1]\n" % n for n in range(6 * MIB // granule)))
    one.server.manner = lambda _: Manner()
    await one.fetch()
    assert one.holds()


async def test_a_partial_of_another_file_is_not_continued(bench: Make) -> None:
    one = bench(content(SIZE))
    one.server.manner = lambda _: Manner(rate=16 * MIB)
    await partly(one, 0.3)
    one.server.manner = lambda _: Manner()
    one.server.files["/file"] = content(SIZE, seed=5)
    await one.fetch()
    assert one.holds()


@pytest.mark.parametrize(("etag", "continued"), [("same", True), ("other", False)])
async def test_without_a_hash_the_etag_decides_what_is_continued(bench: Make, etag: str, continued: bool) -> None:
    one = bench(content(24 * MIB))
    one.server.manner = lambda _: Manner(rate=8 * MIB)
    one.location = lambda _: one.place(etag="same")
    fetch = asyncio.ensure_future(one.fetch(sha256=None))
    while not one.told or one.told[-1][0] < 12 * MIB:
        await asyncio.sleep(0.01)
    fetch.cancel()
    await asyncio.wait([fetch])
    before = one.server.sent
    one.server.manner = lambda _: Manner()
    one.location = lambda _: one.place(etag=etag)
    await one.fetch(sha256=None)
    assert one.holds()
    assert (one.server.sent - before < 20 * MIB) is continued


async def test_cancelling_stops_the_connections_at_once_and_keeps_the_partial_true(bench: Make) -> None:
    one = bench(content(SIZE), stall_timeout_s=30.0)
    one.server.manner = lambda _: Manner(stall_after=2 * MIB)  # the lanes wait in their sockets
    fetch = asyncio.ensure_future(one.fetch())
    async with asyncio.timeout(10):
        while one.server.sent < 8 * MIB or not one.told or one.told[-1][0] < 7 * MIB:
            await asyncio.sleep(0.01)
    fetch.cancel()
    async with asyncio.timeout(1):
        with pytest.raises(asyncio.CancelledError):
            await fetch
        while one.server.busy:
            await asyncio.sleep(0.01)
    granule = granule_for(SIZE)
    data = one.part.read_bytes()
    assert claims(one)
    for index in claims(one):
        assert (
            data[index * granule : (index + 1) * granule]
            == one.server.files["/file"][index * granule : (index + 1) * granule]
        )


async def test_a_full_disk_keeps_what_is_there_and_says_how_to_go_on(tmp_path: Path, bench: Make) -> None:
    one = bench(content(SIZE))
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(mount)], capture_output=True)
    if made.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        one.part, one.journal = mount / "p", mount / "j"
        with pytest.raises(WantdError) as caught:
            await one.fetch()
        assert caught.value.code is Code.DISK_FULL and caught.value.retryable
        assert "ENOSPC" in caught.value.message
        subprocess.run(["mount", "-o", "remount,size=64m", str(mount)], check=True)
        await one.fetch()
        assert one.holds()
    finally:
        subprocess.run(["umount", str(mount)], check=True)


async def test_data_whose_sync_failed_is_not_claimed_any_more(bench: Make) -> None:
    one = bench(content(SIZE))
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace to make fdatasync fail")
    failing = [strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO"]
    process = child(one, failing, stderr=subprocess.PIPE)
    _, said = await asyncio.to_thread(process.communicate, timeout=60)
    assert b"store_unwritable" in said and b"EIO" in said
    assert claims(one) == {}
    await one.fetch()
    assert one.holds() and one.server.sent >= 2 * SIZE


async def test_a_directory_that_cannot_be_written_is_named(bench: Make) -> None:
    one = bench(content(6 * MIB))
    one.part = Path("/proc/nowhere")
    with pytest.raises(WantdError) as caught:
        await one.fetch()
    assert caught.value.code is Code.STORE_UNWRITABLE and "/proc/nowhere" in caught.value.message


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
async def test_what_lies_in_place_of_the_part_file_is_never_followed(bench: Make, kind: str) -> None:
    one = bench(content(6 * MIB))
    victim = one.directory / "victim"
    victim.write_bytes(b"precious")
    {"link": lambda: one.part.symlink_to(victim), "fifo": lambda: os.mkfifo(one.part), "directory": one.part.mkdir}[
        kind
    ]()
    with pytest.raises(WantdError) as caught:
        await one.fetch()
    assert caught.value.code is Code.STORE_UNWRITABLE
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, Code.DISK_FULL),
        (errno.EDQUOT, Code.DISK_FULL),
        (errno.EIO, Code.STORE_UNWRITABLE),
        (errno.EROFS, Code.STORE_UNWRITABLE),
        (errno.EACCES, Code.STORE_UNWRITABLE),
    ],
)
def test_errors_of_the_disk_have_their_codes(number: int, code: Code) -> None:
    with pytest.raises(WantdError) as caught, disk_errors("/store/x.part"):
        raise OSError(number, os.strerror(number))
    assert caught.value.code is code and errno.errorcode[number] in caught.value.message


async def test_a_partial_is_locked_against_other_processes(bench: Make) -> None:
    one = bench(content(6 * MIB))
    held = Partial.open(one.request())
    assert held is not None
    assert Partial.open(one.request()) is None
    held.close()
    again = Partial.open(one.request())
    assert again is not None
    again.close()


async def test_the_journal_is_readable_and_says_which_file_it_is_for(bench: Make) -> None:
    one = bench(content(SIZE))
    one.server.manner = lambda _: Manner(rate=8 * MIB)
    await partly(one, 0.2)
    header, *lines = one.journal.read_bytes().splitlines()
    assert orjson.loads(header)["sha256"] == sha256(one.server.files["/file"])
    assert orjson.loads(header)["size"] == SIZE
    assert all(len(orjson.loads(line)) == 2 for line in lines)
