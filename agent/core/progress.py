"""The content of a `.progress` file (docs/protocol.md): values in, JSON out."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from agent.core.states import FINAL, State, combined, move
from agent.core.waits import Wait, to_json
from agent.core.words import timestamp
from agent.errors import WantdError

SCHEMA = 1
FILES_SHOWN = 200  # a longer list is cut to the files in motion, so that a progress file stays small
ALMOST = 0.9999  # the most that is shown before the end, at the four digits of a progress file
STEPS = 10  # each tenth is worth a line in the log and a progress file at once
RATE_STEP_S = 0.1
RATE_MEMORY_S = 3.0  # a rate over the last seconds: steady enough to read, quick enough to show a stall


@dataclass(slots=True)
class FileProgress:
    """One file of a model; `size` in bytes, None until it is known. `source` is who gives or gave its bytes."""

    name: str
    size: int | None
    sha256: str | None = None
    bytes_done: int = 0
    state: State = State.QUEUED
    source: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "size": self.size,
            "bytes_done": self.bytes_done,
            "sha256": self.sha256,
            "state": self.state.value,
            "source": self.source,
        }


@dataclass(slots=True)
class ModelProgress:
    """How one model goes. Every want for it shows the same one; its job is the only writer."""

    repo: str | None = None
    revision: str | None = None
    commit: str | None = None
    state: State = State.QUEUED
    source: str | None = None
    source_why: str | None = None  # why the sources before this one were passed over
    verified: bool | None = None  # whether every file had a hash to hold against; None until that is known
    path: str | None = None
    skipped: tuple[str, ...] = ()  # files that were left out because they can run code
    warning: str | None = None  # what a user has to know before the model is loaded
    throttled_by: str | None = None  # the host that holds back, while bytes come
    files: list[FileProgress] = field(default_factory=list)
    bytes_done: int = 0
    bytes_total: int | None = None
    rate: float = 0.0
    waiting: Wait | None = None
    error: WantdError | None = None
    attempt: int = 1
    # Made when bytes move: of most models, and of all that failed to resolve, none ever do.
    _marks: deque[tuple[float, int]] | None = None
    _counts: Counter[State] | None = None

    @staticmethod
    def failed(error: WantdError) -> ModelProgress:
        """A model that no job stands for: its reference cannot be resolved."""
        progress = ModelProgress()
        progress.go(State.FAILED, error=error)
        return progress

    def go(self, state: State, *, waiting: Wait | None = None, error: WantdError | None = None) -> None:
        """Change state; `waiting` and `error` hold for this state only."""
        self.state = move(self.state, state)
        self.waiting, self.error = waiting, error
        if state is not State.DOWNLOADING:
            self.rate = 0.0
            self._marks = None
            self.throttled_by = None

    def begin(self, files: list[FileProgress], total: int | None) -> None:
        """The plan is known: these files, `total` bytes (None where a size is unknown)."""
        self.files, self.bytes_total = files, total
        self.bytes_done = 0
        self._counts = Counter(file.state for file in files) if files else None
        self._marks = None

    def update(self, file: FileProgress, done: int, state: State, now: float) -> None:
        """One of the files has `done` bytes and is in `state`. `now` is a monotonic time in seconds."""
        self.bytes_done += done - file.bytes_done
        counts = self._counts = Counter() if self._counts is None else self._counts
        counts[file.state] -= 1
        counts[state] += 1
        file.bytes_done, file.state = done, state
        marks = self._marks = deque() if self._marks is None else self._marks
        if marks and self.bytes_done < marks[-1][1]:
            marks.clear()  # bad ranges were dropped: measure the rate from here
        if marks and now - marks[-1][0] < RATE_STEP_S:
            return
        marks.append((now, self.bytes_done))
        while len(marks) > 2 and marks[1][0] <= now - RATE_MEMORY_S:
            marks.popleft()
        elapsed = now - marks[0][0]
        self.rate = (self.bytes_done - marks[0][1]) / elapsed if elapsed > 0 else 0.0

    def show_published(self, files: Iterable[tuple[str, int, str]], total: int) -> None:
        """The model is in the store: its (name, size, SHA-256) files, all there."""
        self.begin([FileProgress(name, size, sha256, size, State.READY) for name, size, sha256 in files], total)
        self.bytes_done = total

    @property
    def step(self) -> int:
        """Which tenth has been reached, 0 to `STEPS`."""
        return int(self.fraction * STEPS)

    @property
    def files_done(self) -> int:
        """How many files are complete and verified."""
        return self._counts[State.READY] if self._counts else 0

    @property
    def only_verifying(self) -> bool:
        """Whether every file that is not done has all its bytes and is being hashed."""
        verifying = self._counts[State.VERIFYING] if self._counts else 0
        return verifying > 0 and verifying + self.files_done == len(self.files)

    @property
    def fraction(self) -> float:
        """0 to 1; 1 only when the model is ready, so that nobody takes the last byte for the end."""
        if self.state is State.READY:
            return 1.0
        if not self.bytes_total:
            return 0.0
        return min(self.bytes_done / self.bytes_total, ALMOST)

    def to_json(self, name: str, files_shown: int = FILES_SHOWN) -> dict[str, Any]:
        """One entry of `models`; `name` is the reference as this want spells it. Of more files only those in motion."""
        cut = len(self.files) > files_shown
        moving = {State.DOWNLOADING, State.VERIFYING}
        shown = [file for file in self.files if file.state in moving][:files_shown] if cut else self.files
        value: dict[str, Any] = {
            "model": name,
            "repo": self.repo,
            "revision": self.revision,
            "commit": self.commit,
            "state": self.state.value,
            "source": self.source,
            "source_why": self.source_why,
            "verified": self.verified,
            "path": self.path,
            "bytes_done": self.bytes_done,
            "bytes_total": self.bytes_total,
            "waiting": to_json(self.waiting) if self.waiting else None,
            "error": self.error.to_json() if self.error else None,
            "files": [file.to_json() for file in shown],
        }
        if self.skipped:
            value["skipped"] = list(self.skipped)
        if self.warning:
            value["warning"] = self.warning
        if self.throttled_by:
            value["throttled_by"] = self.throttled_by
        if cut:
            value["files_total"] = len(self.files)
            value["files_done"] = self.files_done
        return value


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """Who writes: shown in every progress file."""

    pid: int
    host: str
    version: str


@dataclass(frozen=True, slots=True)
class WantInfo:
    """What a progress file says of the want itself. Times are aware datetimes."""

    name: str
    attempt: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class ModelShown:
    """One model as it is at one moment: its entry of `models`, and what the want as a whole is made of.

    Without an entry it counts, and is not shown.
    """

    entry: dict[str, Any] | None
    state: State
    fraction: float
    bytes_done: int
    bytes_total: int | None
    rate: float
    error: WantdError | None
    waiting: Wait | None
    throttled_by: str | None = None


def show_model(name: str, model: ModelProgress, files: int | None = FILES_SHOWN) -> ModelShown:
    """A model as it is now, in some microseconds, and one for each file. `name` is the reference that the want uses.

    Of more than `files` files those in motion are shown; with None the model has no entry.
    """
    return ModelShown(
        model.to_json(name, files) if files is not None else None,
        model.state,
        model.fraction,
        model.bytes_done,
        model.bytes_total,
        model.rate,
        model.error,
        model.waiting,
        model.throttled_by,
    )


def want_state(models: Sequence[ModelShown], error: WantdError | None) -> State:
    """The state that the want as a whole is in."""
    if error:
        return State.FAILED
    return combined(model.state for model in models) if models else State.QUEUED


def want_fraction(models: Sequence[ModelShown]) -> float:
    """0 to 1 over all models: by bytes where every size is known, else each model counts the same."""
    if not models:
        return 0.0
    if all(model.state is State.READY for model in models):
        return 1.0
    totals = [model.bytes_total for model in models]
    weights = [total or 1 for total in totals] if all(totals) else [1 for _ in totals]
    mean = sum(m.fraction * w for m, w in zip(models, weights, strict=True)) / sum(weights)
    return min(mean, ALMOST)


def render(
    want: WantInfo,
    models: Sequence[ModelShown],
    agent: AgentInfo,
    now: datetime,
    *,
    least: float = 0.0,
    error: WantdError | None = None,
    waiting: Wait | None = None,
) -> tuple[bytes, float]:
    """The whole progress file, and its `progress`. The parameters are those of `describe`."""
    value, fraction = describe(want, models, agent, now, least=least, error=error, waiting=waiting)
    return encode(value, orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE), fraction


def describe(
    want: WantInfo,
    models: Sequence[ModelShown],
    agent: AgentInfo,
    now: datetime,
    *,
    least: float = 0.0,
    error: WantdError | None = None,
    waiting: Wait | None = None,
) -> tuple[dict[str, Any], float]:
    """What a progress file says, and its `progress`, which is never under `least` (what was written before).

    `models` are the want's, in its order. `error` and `waiting` are the want's own: it cannot be read, it is not time
    yet.
    """
    state = State.WAITING if waiting and not error else want_state(models, error)
    fraction = max(least, want_fraction(models))
    done = sum(model.bytes_done for model in models)
    totals = [model.bytes_total for model in models]
    total = sum(t or 0 for t in totals) if models and all(t is not None for t in totals) else None
    rate = sum(model.rate for model in models)
    failed = error or next((model.error for model in models if model.state is State.FAILED), None)
    holdup = waiting or next((model.waiting for model in models if model.state is State.WAITING), None)
    moving = total is not None and rate > 0 and state not in FINAL
    eta = round((total - done) / rate, 1) if moving and total is not None else None
    value = {
        "schema": SCHEMA,
        "want": want.name,
        "state": state.value,
        "progress": round(fraction, 4),
        "bytes_done": done,
        "bytes_total": total,
        "rate_bytes_per_s": round(rate),
        "eta_s": eta,
        "models": [model.entry for model in models if model.entry is not None],
        "waiting": to_json(holdup) if holdup and state is State.WAITING else None,
        "error": failed.to_json() if failed else None,
        "attempt": want.attempt,
        "labels": want.labels,
        "created_at": timestamp(want.created_at),
        "updated_at": timestamp(now),
        "started_at": want.started_at and timestamp(want.started_at),
        "finished_at": want.finished_at and timestamp(want.finished_at),
        "agent": {"pid": agent.pid, "host": agent.host, "version": agent.version},
    }
    if host := next((model.throttled_by for model in models if model.throttled_by), None):
        value["throttled_by"] = host
    return value, fraction


def encode(value: Any, option: int = 0) -> bytes:
    """JSON, with `?` for what UTF-8 cannot hold. `option` is orjson's."""
    try:
        return orjson.dumps(value, option=option)
    except TypeError:  # a file name that is not UTF-8, as an unpaired surrogate
        return orjson.dumps(_encodable(value), option=option)


def _encodable(value: Any) -> Any:
    """The value with `?` for what UTF-8 cannot hold."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return [_encodable(item) for item in value] if isinstance(value, list) else value
