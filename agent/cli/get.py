"""`wantd get MODEL…`: drops wants, shows their progress, prints the paths. Any other program can do the same."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import sys
import time
from typing import Any, Protocol

import orjson

from agent.cli.text import how_it_goes
from agent.config import load, process_environment
from agent.core.want import PROGRESS_SUFFIX, WANT_SUFFIX
from agent.disk import atomic_write
from agent.errors import Code, Exit, WantdError
from agent.reports.status import agent_of
from agent.store.layout import Layout

POLL_S = 0.05  # a stat of one small file; quicker than people see
SILENCE_S = 3.0  # an agent answers within 0.1 s: after this there is none, or it is stuck
FINAL = ("ready", "failed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be requested."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help="catalog id or org/name, with :QUANT and @REVISION")
    parser.add_argument("--files", action="append", default=[], metavar="PATTERN", help="only files that match")
    parser.add_argument("--exclude", action="append", default=[], metavar="PATTERN", help="no files that match")
    parser.add_argument(
        "--snapshot", choices=("load", "all"), default="load", help="load: what a program opens; all: every file"
    )
    parser.add_argument("--priority", type=int, default=5, choices=range(10), metavar="0-9", help="0 is first")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="stop waiting after this time; the want stays")
    parser.add_argument("--no-wait", action="store_true", help="drop the wants, print their paths, do not wait")
    parser.add_argument("--cancel-on-interrupt", action="store_true", help="Ctrl-C removes the want")


class Watch:
    """One want that was dropped, and its progress file."""

    def __init__(self, model: str, path: str, before: str | None) -> None:
        self.model = model
        self.path = path
        self.progress: dict[str, Any] | None = None
        self._path = path.removesuffix(WANT_SUFFIX) + PROGRESS_SUFFIX
        self._before = before  # `updated_at` of the progress file found at first: a failure in it is not news
        self._seen = 0

    def look(self) -> bool:
        """Read the progress file again if it has changed. True when it has."""
        try:
            stamp = os.stat(self._path).st_mtime_ns
            if stamp == self._seen:
                return False
            with open(self._path, "rb") as file:
                progress = orjson.loads(file.read())
        except (OSError, orjson.JSONDecodeError):
            return False
        self._seen = stamp
        if progress.get("updated_at") == self._before and progress.get("state") == "failed":
            return False
        self.progress = progress
        return True

    @property
    def final(self) -> bool:
        """Whether nothing more will come."""
        if self.progress is None or self.progress.get("state") not in FINAL:
            return False
        paths = [model.get("path") for model in self.progress.get("models", [])]
        return self.progress["state"] == "failed" or all(path and os.path.exists(path) for path in paths)


class Display(Protocol):
    """Shows the progress of wants on standard error."""

    def update(self, watch: Watch) -> None: ...
    def note(self, text: str) -> None: ...
    def close(self) -> None: ...


class Lines:
    """For a log or a pipe: one line for each change of state and each tenth."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, int]] = {}

    def update(self, watch: Watch) -> None:
        progress = watch.progress or {}
        key = (str(progress.get("state")), int(progress.get("progress", 0) * 10))
        if self._last.get(watch.model) != key:
            self._last[watch.model] = key
            self.note(f"{watch.model}: {how_it_goes(progress)}")

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing is held."""


class Bars:
    """For a terminal: one live bar for each model, with rate and time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskID, TextColumn

        self._bars = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>5.1f}%"),
            TextColumn("{task.fields[text]}", markup=False),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}
        self._bars.start()

    def update(self, watch: Watch) -> None:
        from rich.markup import escape

        if watch.model not in self._tasks:
            self._tasks[watch.model] = self._bars.add_task(escape(watch.model), total=1.0, text="")
        progress = watch.progress or {}
        self._bars.update(
            self._tasks[watch.model], completed=progress.get("progress", 0.0), text=how_it_goes(progress, percent=False)
        )

    def note(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self._bars.stop()


def call(arguments: argparse.Namespace) -> int:
    """Drop, watch, print. Returns 0, or the exit code of the first error."""
    config = load(arguments.config, process_environment())
    watches = [_drop(config.spool.dir, model, arguments) for model in dict.fromkeys(arguments.models)]
    if arguments.no_wait:
        for watch in watches:
            print(watch.path)
        return Exit.OK
    display: Display = Bars() if sys.stderr.isatty() else Lines()
    try:
        _follow(watches, display, arguments.timeout, config.spool.dir, config.store.dir)
    except KeyboardInterrupt:
        display.close()
        return _interrupted(watches, arguments.cancel_on_interrupt)
    display.close()
    return _conclude(watches)


def _drop(spool: str, model: str, arguments: argparse.Namespace) -> Watch:
    """Write the want; one that already says the same is touched, which retries it if it failed."""
    want: dict[str, Any] = {"model": model}
    if arguments.files:
        want["files"] = arguments.files
    if arguments.exclude:
        want["exclude"] = arguments.exclude
    if arguments.snapshot != "load":
        want["snapshot"] = arguments.snapshot
    if arguments.priority != 5:
        want["priority"] = arguments.priority
    data = model.encode(errors="surrogateescape") + b"\n" if len(want) == 1 else orjson.dumps(want) + b"\n"
    name = re.sub(r"[^A-Za-z0-9._:@-]", "_", model.replace("/", "--")).lstrip(".")[:150] or "want"
    if len(want) > 1 or name.replace("--", "/") != model:
        name += "-" + hashlib.sha256(data).hexdigest()[:8]
    path = f"{spool}/{name}{WANT_SUFFIX}"
    before = _updated_at(path)
    try:
        os.makedirs(spool, exist_ok=True)
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            if file.read(len(data) + 1) == data:
                try:
                    os.utime(path)
                except PermissionError:
                    before = None  # another user's: it is not tried again, so that its failure is news
                return Watch(model, path, before)
        atomic_write(path, data, mode=0o666)  # less the umask, like any file that a user creates
    except OSError as error:
        raise WantdError(
            Code.WANT_UNREADABLE,
            f"cannot write the want {path}: {error.strerror}",
            "join the group that may write to the spool, or set WANTD_SPOOL__DIR to the spool of your agent",
        ) from None
    return Watch(model, path, before)


def _updated_at(want_path: str) -> str | None:
    watch = Watch("", want_path, None)
    watch.look()
    return watch.progress.get("updated_at") if watch.progress else None


def _follow(watches: list[Watch], display: Display, timeout: float | None, spool: str, store: str) -> None:
    began = time.monotonic()
    complained = False
    while True:
        for watch in watches:
            if watch.look():
                display.update(watch)
        if all(watch.final for watch in watches):
            return
        waited = time.monotonic() - began
        if timeout is not None and waited > timeout:
            return
        if waited > SILENCE_S and not complained:
            complained = True
            if not agent_of(spool, Layout(store)).running:
                display.note(
                    f"no agent serves {spool}: start one with `wantd run`, or set WANTD_SPOOL__DIR to the spool "
                    "of the running agent; still waiting"
                )
            elif any(watch.progress is None for watch in watches):
                display.note(f"the agent of {spool} has not written a progress file yet; see its log; still waiting")
        time.sleep(POLL_S)


def _interrupted(watches: list[Watch], cancel: bool) -> int:
    for watch in watches:
        if watch.final:
            continue
        if cancel:
            with contextlib.suppress(OSError):
                os.unlink(watch.path)
            print(f"{watch.model}: no longer wanted", file=sys.stderr)
        else:
            print(f"{watch.model}: still wanted; remove {watch.path} to cancel it", file=sys.stderr)
    return Exit.INTERRUPTED


def _conclude(watches: list[Watch]) -> int:
    code: int = Exit.OK
    for watch in watches:
        progress = watch.progress or {}
        if not watch.final:
            print(f"{watch.model}: not ready yet, still wanted; see {watch.path}", file=sys.stderr)
            code = code or Exit.FAILURE
            continue
        for model in progress.get("models", []):
            if model.get("path"):
                print(model["path"])
        if error := progress.get("error"):
            print(f"{watch.model}: {error['message']} ({error['code']})\n  {error['hint']}", file=sys.stderr)
            code = code or _exit_code(error.get("code"))
    return code


def _exit_code(code: Any) -> int:
    return Exit.of(Code(code)) if code in list(Code) else Exit.FAILURE
