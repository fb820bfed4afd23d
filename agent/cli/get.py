"""`wantd get MODEL…`: drops wants, shows their progress, prints the paths. Any other program can do the same."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

import orjson

from agent.cli.arguments import not_empty, seconds
from agent.cli.display import Display, display
from agent.cli.watch import Watch, conclude
from agent.config import load, process_environment
from agent.core.want import WANT_SUFFIX
from agent.disk import atomic_write
from agent.errors import Code, Exit, WantdError
from agent.reports.status import agent_of
from agent.store.layout import Layout

POLL_S = 0.05  # a stat of one small file; quicker than people see
LOOK_FOR_AGENT_S = 1.0  # between two looks at the lock of the spool
SILENCE_S = 3.0  # an agent writes a progress file within 0.1 s: after this something is wrong, and is said
NO_AGENT_S = 10.0  # more than an agent takes to restart
EXAMPLES = """\
examples:
  wantd get qwen3                                a model of the catalog
  wantd get bartowski/Qwen_Qwen3-0.6B-GGUF:Q8_0  a repository, in one quantization
  wantd get https://huggingface.co/Qwen/Qwen3-0.6B
  wantd get --no-wait qwen3 gemma3               request, and go on
  llama-server -m "$(wantd get qwen3)"           only the path is on standard output
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be requested."""
    parser.add_argument(
        "models", nargs="+", type=not_empty, metavar="MODEL", help="catalog id, org/name or URL; :QUANT and @REVISION"
    )
    parser.add_argument("--files", action="append", default=[], metavar="PATTERN", help="only files that match")
    parser.add_argument("--exclude", action="append", default=[], metavar="PATTERN", help="no files that match")
    parser.add_argument("--priority", type=int, default=5, choices=range(10), metavar="0-9", help="0 is first")
    parser.add_argument(
        "--timeout", type=seconds, metavar="SECONDS", help="stop waiting after this time; the want stays"
    )
    parser.add_argument("--no-wait", action="store_true", help="drop the wants, print their paths, do not wait")
    parser.add_argument("--wait-for-agent", action="store_true", help="also wait while no agent is running")
    parser.add_argument("--keep", action="store_true", help="keep wants that failed; they are removed otherwise")
    parser.add_argument("--cancel-on-interrupt", action="store_true", help="Ctrl-C removes the want")


class Dropped(Watch):
    """A want that was dropped. `ours` is its content where this command wrote it, None where it was there already."""

    def __init__(self, model: str, path: str, before: str | None, ours: bytes | None = None) -> None:
        super().__init__(model, path, before)
        self.ours = ours


def call(arguments: argparse.Namespace) -> int:
    """Drop, watch, print. Returns 0, or the exit code of the first error."""
    config = load(arguments.config, process_environment())
    watches = [_drop(config.spool.dir, model, arguments) for model in dict.fromkeys(arguments.models)]
    if arguments.no_wait:
        for watch in watches:
            print(watch.path)
        return Exit.OK
    screen = display()
    agent = _Agent(config.spool.dir, config.store.dir, arguments.wait_for_agent)
    try:
        _follow(watches, screen, arguments.timeout, agent)
    except KeyboardInterrupt:
        screen.close()
        return _interrupted(watches, arguments.cancel_on_interrupt)
    screen.close()
    if agent.missing and not all(watch.final for watch in watches):
        return _no_agent(watches, config.spool.dir)
    code = conclude(watches)
    if not arguments.keep:
        _remove_failed(watches)
    return code


def _drop(spool: str, model: str, arguments: argparse.Namespace) -> Dropped:
    """Write the want; one that already says the same is touched, which retries it if it failed."""
    want: dict[str, Any] = {"model": model}
    if arguments.files:
        want["files"] = arguments.files
    if arguments.exclude:
        want["exclude"] = arguments.exclude
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
                return Dropped(model, path, before)
        atomic_write(path, data, mode=0o666)  # less the umask, like any file that a user creates
    except OSError as error:
        raise WantdError(
            Code.SPOOL_UNWRITABLE,
            f"cannot write the want {path}: {error.strerror}",
            "join the group that may write to the spool (`ls -ld` shows it), or set WANTD_SPOOL__DIR to the spool of "
            "your agent",
        ) from None
    return Dropped(model, path, before, data)


def _updated_at(want_path: str) -> str | None:
    watch = Watch("", want_path)
    watch.look()
    return watch.progress.get("updated_at") if watch.progress else None


class _Agent:
    """Looks from time to time whether an agent serves the spool. `missing` when patience with that has ended."""

    def __init__(self, spool: str, store: str, patient: bool) -> None:
        self.spool = spool
        self.running = True
        self._layout = Layout(store)
        self._patient = patient
        self._looked = self._alive = time.monotonic()

    def look(self) -> None:
        """Look again, if it is time."""
        now = time.monotonic()
        if now - self._looked < LOOK_FOR_AGENT_S:
            return
        self._looked = now
        self.running = agent_of(self.spool, self._layout).running
        if self.running:
            self._alive = now

    @property
    def missing(self) -> bool:
        """Whether to give up."""
        return not self.running and not self._patient and time.monotonic() - self._alive >= NO_AGENT_S


def _follow(watches: Sequence[Watch], screen: Display, timeout: float | None, agent: _Agent) -> None:
    """Look and show until every want is final, the time is over or the agent is missing."""
    began = time.monotonic()
    complained = False
    while True:
        for watch in watches:
            watch.look()
        screen.update(watches)
        if all(watch.final for watch in watches):
            return
        agent.look()
        waited = time.monotonic() - began
        if agent.missing or (timeout is not None and waited > timeout):
            return
        if waited > SILENCE_S and not complained:
            if not agent.running:
                complained = True
                screen.note(f"no agent serves {agent.spool} yet; waiting for one")
            elif any(watch.progress is None for watch in watches):
                complained = True
                screen.note(f"the agent of {agent.spool} has not written a progress file yet; see its log")
        time.sleep(POLL_S)


def _no_agent(watches: Sequence[Watch], spool: str) -> int:
    paths = " ".join(watch.path for watch in watches if not watch.final)
    print(
        f"wantd: no agent serves {spool}\n"
        "       start it with `systemctl start wantd` or `wantd run`, or set WANTD_SPOOL__DIR to the spool of a "
        f"running agent\n       (--wait-for-agent waits for it); the want stays: {paths}",
        file=sys.stderr,
    )
    return Exit.NO_AGENT


def _interrupted(watches: Sequence[Watch], cancel: bool) -> int:
    for watch in watches:
        if watch.final:
            continue
        if cancel:
            with contextlib.suppress(OSError):
                os.unlink(watch.path)
            print(f"{watch.name}: no longer wanted", file=sys.stderr)
        else:
            print(f"{watch.name}: still wanted; remove {watch.path} to cancel it", file=sys.stderr)
    return Exit.INTERRUPTED


def _remove_failed(watches: Sequence[Dropped]) -> None:
    """Remove the wants that failed and that this command wrote, unless somebody has rewritten them since."""
    for watch in watches:
        if watch.ours is None or watch.state != "failed":
            continue
        with contextlib.suppress(OSError):
            with open(watch.path, "rb") as file:
                same = file.read(len(watch.ours) + 1) == watch.ours
            if same:
                os.unlink(watch.path)
