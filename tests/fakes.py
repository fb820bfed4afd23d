"""What unit tests hand in where an agent has the real thing: a clock that the test moves, a store, a source, …"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from loguru import logger

from agent.clock import Work
from agent.core.access import PlainHttp
from agent.core.names import Reference, RepoId, SafeName, StoreName
from agent.core.remote import Fetched, FetchRequest, Listing, Locate, Location, OnBytes, Query, RemoteFile
from agent.core.states import State
from agent.core.target import Selection, Target
from agent.errors import Code, WantdError
from agent.jobs.run import Run
from agent.state.ticket import Ticket
from agent.store.layout import Published, Record, RecordFile

DEADLINE_S = 20.0  # far more than anything takes; only a failure waits so long
COMMIT = "1a2b3c4d5e6f7890abcdef1234567890abcdef12"
START = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


class FakeClock:
    """A `agent.clock.Clock` on which no time passes until `advance`."""

    def __init__(self) -> None:
        self._elapsed = 0.0
        self._start = START
        self.appointments: dict[str, tuple[float, Work]] = {}
        self.intervals: dict[str, tuple[Callable[[], float], Work]] = {}
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def monotonic(self) -> float:
        return 1000.0 + self._elapsed

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    def wall_is(self, seconds: float) -> None:
        """Set the wall clock to a Unix time."""
        self._start = datetime.fromtimestamp(seconds - self._elapsed, UTC)

    def pass_(self, seconds: float) -> None:
        """Let time pass while something works: nothing else has its turn meanwhile."""
        self._elapsed += seconds

    async def sleep(self, seconds: float) -> None:
        over = asyncio.Event()
        self._sleepers.append((self._elapsed + seconds, over))
        await over.wait()

    def every(self, name: str, seconds: Callable[[], float], work: Work) -> None:
        self.intervals[name] = seconds, work

    def after(self, name: str, seconds: float, work: Work) -> None:
        self.appointments[name] = self._elapsed + max(seconds, 0.0), work

    def forget(self, name: str) -> None:
        self.appointments.pop(name, None)

    async def advance(self, seconds: float) -> None:
        """Let time pass: appointments that fall due are kept in order, sleepers wake, and what follows settles."""
        until = self._elapsed + seconds
        while due := [(at, name) for name, (at, _) in self.appointments.items() if at <= until]:
            at, name = min(due)
            self._elapsed = max(self._elapsed, at)
            _, work = self.appointments.pop(name)
            await work()
            await settle()
        self._elapsed = until
        for at, over in self._sleepers:
            if at <= until:
                over.set()
        self._sleepers = [(at, over) for at, over in self._sleepers if at > until]
        await settle()


async def settle() -> None:
    """Let every task that can go on do so, until all of them wait for something."""
    for _ in range(100):
        await asyncio.sleep(0)


async def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Wait until `condition` gives something true, and give that: for what real threads do."""
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:g} s: {what}"
        await asyncio.sleep(0.001)
    return value


class Inline(ThreadPoolExecutor):
    """An executor for `loop.set_default_executor`: work is done where it is handed in, and `settle` waits for it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  it is raised where the result is waited for
            future.set_exception(error)
        return future


@contextmanager
def logged(level: str = "DEBUG") -> Iterator[list[str]]:
    """The lines that are logged meanwhile, each as `LEVEL message`."""
    lines: list[str] = []
    number = logger.add(lambda message: lines.append(str(message).rstrip()), format="{level} {message}", level=level)
    try:
        yield lines
    finally:
        logger.remove(number)


def target(name: str = "qwen3", **selection: Any) -> Target:
    """A model of its own repository. `selection` are further fields of what is selected."""
    chosen = Selection(RepoId(f"org/{name}"), **selection)
    return Target(StoreName(name), chosen, Reference(name), StoreName(name), chosen)


def ticket(name: str = "a") -> Ticket:
    """A want that was just seen."""
    return Ticket(f"/spool/{name}.want", START)


def published(
    wanted: Target, size: int = 10, *, source: str = "hub", commit: str = COMMIT, provisional: bool = False
) -> Published:
    """A model as the store has it: one file of `size` bytes."""
    record = Record(
        schema=1,
        model=wanted.model,
        repo=wanted.selection.repo,
        revision=wanted.selection.revision,
        commit=commit,
        format="gguf",
        opens="m.gguf",
        selection=wanted.selection.to_json(),
        source=source,
        files=[RecordFile("m.gguf", size, "ab" * 32, source)],
        published_at="2026-11-22T07:04:11.120Z",
        provisional=provisional,
    )
    return Published(record, f"/models/{wanted.name}/m.gguf", f"/models/{wanted.name}")


def error(
    code: Code = Code.HUB_UNREACHABLE, *, retry_after_s: float | None = None, file: str | None = None
) -> WantdError:
    """An error as a source or the disk raises it."""
    return WantdError(code, f"it is {code.value}", "do something about it", retry_after_s=retry_after_s, file=file)


@dataclass
class FakeStore:
    """What the board and intake ask of the store. `on_look` is called with each target that is looked for."""

    models: dict[Target, Published] = field(default_factory=dict)
    writable: bool = True
    looked: list[Target] = field(default_factory=list)
    on_look: Callable[[Target], None] = lambda _: None

    def publish(self, wanted: Target, size: int = 10) -> Published:
        self.models[wanted] = published(wanted, size)
        return self.models[wanted]

    def published(self, wanted: Target) -> Published | None:
        self.looked.append(wanted)
        self.on_look(wanted)
        return self.models.get(wanted)

    def create(self) -> None:
        if not self.writable:
            raise error(Code.STORE_UNWRITABLE)


@dataclass
class FakeDisk:
    """A file system of so many bytes, of which so many are free; to the board also the room that there is on it."""

    free_bytes: int = 1000
    total_bytes: int = 10**9
    gone: set[str] = field(default_factory=set)  # models that are being removed

    def free(self) -> int:
        return self.free_bytes

    async def capacity(self) -> int:
        return self.free_bytes

    def leaving(self, name: StoreName) -> bool:
        return name in self.gone

    def statvfs(self, _: str) -> os.statvfs_result:
        return os.statvfs_result((1, 1, self.total_bytes, self.free_bytes, self.free_bytes, 0, 0, 0, 0, 255))


class FakeRunner:
    """Runs that end when the test says so, and how: with a model, or with what is raised."""

    def __init__(self) -> None:
        self.runs: list[Run] = []  # in the order in which they began
        self.cancelled: list[Run] = []
        self._ends: dict[Run, asyncio.Future[Published]] = {}
        self.hub: bool | WantdError = True  # what asking the Hub about a provisional model comes to
        self.asked: list[tuple[str, str]] = []
        self.slow_to_stop: asyncio.Event | None = None  # where it is set, a cancelled run waits for it

    async def is_known_whole(self, target: Target, commit: str) -> bool:
        self.asked.append((target.name, commit))
        if isinstance(self.hub, WantdError):
            raise self.hub
        return self.hub

    async def run(self, run: Run) -> Published:
        self.runs.append(run)
        end = self._ends[run] = asyncio.get_running_loop().create_future()
        try:
            return await end
        except asyncio.CancelledError:
            if self.slow_to_stop:
                await self.slow_to_stop.wait()
            self.cancelled.append(run)
            raise
        finally:
            del self._ends[run]

    @property
    def active(self) -> list[str]:
        """Names of the models that are being worked on."""
        return [run.job.target.name for run in self._ends]

    def latest(self, name: str) -> Run:
        """The latest run for the model."""
        return next(run for run in reversed(self.runs) if run.job.target.name == name)

    async def finish(self, name: str, size: int = 10) -> None:
        """The model is published."""
        run = self.latest(name)
        if run.job.progress.state in (State.QUEUED, State.WAITING):
            run.job.resolve()
        self.end(name, published(run.job.target, size))
        await settle()

    def end(self, name: str, result: Published) -> None:
        """The latest run for the model ends with this."""
        self._ends[self.latest(name)].set_result(result)

    async def fail(self, name: str, why: BaseException) -> None:
        """The run ends with what is raised, after it has asked the sources."""
        run = self.latest(name)
        if run.job.progress.state in (State.QUEUED, State.WAITING):
            run.job.resolve()
        self._ends[run].set_exception(why)
        await settle()


class FakeSource:
    """A source with one listing for each repository, or an error in its place."""

    name = "hub"

    def __init__(self) -> None:
        self.listings: dict[str, Listing | WantdError] = {}
        self.asked: list[Query] = []
        self.located: list[tuple[SafeName, WantdError | None]] = []
        self.locations: dict[int, str] = {}  # at the n-th question: the source that the location is of
        self.meanwhile: Callable[[Query], None] = lambda _: None  # called while a listing is asked for

    def lists(self, repo: str, *files: RemoteFile, source: str = "hub", because: WantdError | None = None) -> None:
        self.listings[repo] = Listing(source, RepoId(repo), COMMIT, files, because)

    async def listing(self, query: Query) -> Listing:
        self.asked.append(query)
        self.meanwhile(query)
        answer = self.listings.get(query.repo, error(Code.MODEL_NOT_FOUND))
        if isinstance(answer, WantdError):
            raise answer
        return answer

    async def locate(self, query: Query, name: SafeName, failed: WantdError | None = None) -> Location:
        source = self.locations.get(len(self.located), "hub")
        self.located.append((name, failed))
        return Location(source, PlainHttp("https://cdn.example/file", Anywhere()))


class Anywhere:
    """An address rule that allows everything."""

    def check(self, host: str, ip: str) -> None:
        pass

    def check_literal(self, host: str) -> None:
        pass


class FakeTransfer:
    """Puts bytes where they belong, or raises what `fails` has for the file's name.

    `steps` are the (bytes, verifying) of a file that are told on the way, `watch` is called after each. Before step N a
    new location is asked for where `moves` has one, with that error. `meanwhile` is called with the request before its
    bytes are there; `hold` is waited for. Where it `leaves` nothing, the bytes are gone again at once.
    """

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents
        self.requests: list[FetchRequest] = []
        self.fails: dict[str, BaseException] = {}
        self.steps: dict[str, list[tuple[int, bool]]] = {}
        self.moves: dict[int, WantdError | None] = {}
        self.meanwhile: Callable[[FetchRequest], object] = lambda _: None
        self.watch: Callable[[], object] = lambda: None
        self.hold: asyncio.Event | None = None
        self.verified = True
        self.leaves = True
        self.throttled: str | None = None

    def throttled_by(self, group: str) -> str | None:
        return self.throttled

    async def fetch(self, request: FetchRequest, locate: Locate, on_bytes: OnBytes) -> Fetched:
        self.requests.append(request)
        name = request.label.rpartition(" ")[2]
        location = await locate(None)
        self.meanwhile(request)
        if self.hold:
            await self.hold.wait()
        if name in self.fails:
            raise self.fails[name]
        data = self.contents[name]
        for number, (done, verifying) in enumerate(self.steps.get(name, [(len(data), True)])):
            if number in self.moves:
                location = await locate(self.moves[number])
            on_bytes(done, verifying)
            self.watch()
        if self.leaves:
            with open(request.part_path, "wb") as file:
                file.write(data)
        return Fetched(len(data), hashlib.sha256(data).hexdigest(), self.verified, location.source)
