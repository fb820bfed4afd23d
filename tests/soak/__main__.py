"""`make soak`: hours of a busy host in half an hour, and whether the agent grows.

    python -m tests.soak                   30 minutes
    python -m tests.soak --minutes 3       the same, sooner
    python -m tests.soak --seed 5          other wants, in another order

Four users (real ones where it runs as root) ask for models of all kinds; the Hub and its storage fail, one way after
the other; people remove and damage published models. In the first third the agent is killed (-9) now and then; from
then on one agent is left alone and watched. Ends with 1 where memory, threads or descriptors grew, a file is wrong, or
a want was not answered; prints how long an unrelated bad want waited for its progress file.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.harness import LOOP_HELD, AgentProcess, wait_until
from tests.hub.process import HubProcess
from tests.soak.growth import MIB, Sample, ends, grown, sample

USERS = 4
FIRST_UID = 61_001  # no account has these numbers; setpriv(1) needs none
PRODUCER = Path(__file__).with_name("producer.py")
KILLING = 1 / 3  # of the whole time
KILLS = 6
SAMPLE_S = 1.0
FAULT_S = 5.0  # of each, and as long without any
PROBE_DEADLINE_S = 60.0
PROMISED_S = 1.0  # for an unrelated bad want, whatever else goes on
AT_THE_END = ("qwen3", "gpt-oss-20b", "gemma3", "wantd/split", "wantd/names", "Qwen/Qwen3-0.6B")

FAULTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("cdn/*", {"status": 503, "retry_after": "1"}),
    ("cdn/*", {"max_rate": 200_000}),
    ("hub/api/*", {"status": 500}),
    ("cdn/*", {"cut_after": 50_000}),
    ("cdn/*", {"stall_after": 50_000}),
    ("hub/*", {"latency_s": 1.5}),
    ("hub/api/*", {"status": 429, "retry_after": "2"}),
    ("cdn/*", {"flip_at": 1000, "times": 20}),
    ("cdn/*", {"ignore_ranges": True}),
    ("cdn/*", {"short_by": 10}),
    ("cdn/*", {"endless": True}),
)


@dataclass
class Soak:
    """One run. Threads of their own make faults, remove models, and probe; `over` ends them."""

    root: Path
    hub: HubProcess
    seconds: float
    seed: int
    over: threading.Event = field(default_factory=threading.Event)
    latencies: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    kills: int = 0
    harms: int = 0

    def __post_init__(self) -> None:
        self.agent = AgentProcess(
            self.root, self.hub.endpoint, policy__allow="any", transfer__retry_min_s=0.2, transfer__retry_max_s=2,
            transfer__stall_timeout_s=2, store__min_free_bytes=0, scheduler__rescan_s=5, spool__progress_interval_s=0.2,
        )  # fmt: skip
        self.starts = 0  # of the agent: a probe counts where it saw one agent alone

    def run(self) -> list[Sample]:
        """Everything, and the samples of the agent that was left alone."""
        self.start()
        producers = [self.producer(number) for number in range(USERS)]
        works = [threading.Thread(target=self.always(work)) for work in (self.faults, self.harm, self.probe)]
        for work in works:
            work.start()
        try:
            self.killing()
            samples = self.watching()
        finally:
            self.over.set()
            for producer in producers:
                producer.kill()
                producer.wait()
            for work in works:
                work.join()
        self.settle()
        return samples

    def start(self) -> None:
        self.starts += 1
        self.agent.start()

    def producer(self, number: int) -> subprocess.Popen[bytes]:
        """A user who writes wants."""
        directory = self.agent.spool / f"user{number}"
        directory.mkdir()
        command = [os.path.realpath(sys.executable), "-I", "-S", "-c", PRODUCER.read_text()]
        if os.geteuid() == 0:
            uid = str(FIRST_UID + number)
            os.chown(directory, int(uid), int(uid))
            command = ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", *command]
        return subprocess.Popen([*command, str(directory), str(self.seed + number)], cwd="/", env={})

    def always(self, work: Callable[[], Iterator[float]]) -> Callable[[], None]:
        """The work, again and again, with the pauses (s) that it gives, until the soak is over."""

        def run() -> None:
            while not self.over.is_set():
                for pause in work():
                    if self.over.wait(pause):
                        return

        return run

    def faults(self) -> Iterator[float]:
        for glob, switches in FAULTS:
            self.hub.fault(glob, **switches)
            yield FAULT_S
            self.hub.clear_faults()
            yield FAULT_S

    def harm(self) -> Iterator[float]:
        """People remove a model, or overwrite a part of one: there is always something to do."""
        chance = random.Random(self.seed)
        while True:
            records = list(self.agent.store.rglob(".wantd.json"))
            with contextlib.suppress(OSError, ValueError, IndexError):
                directory = chance.choice(records).parent
                if chance.random() < 0.8:
                    shutil.rmtree(directory)
                else:
                    overwrite(directory / json.loads((directory / ".wantd.json").read_bytes())["files"][0]["name"])
                self.harms += 1
            yield 2.0

    def probe(self) -> Iterator[float]:
        """How long a bad want that has nothing to do with anything waits for its progress file."""
        for number in range(10**9):
            name, starts, began = f"probe/p{number % 10}", self.starts, time.monotonic()
            progress = self.agent.spool / f"{name}.progress"
            if self.agent.process and self.agent.process.poll() is None and not progress.exists():
                self.agent.drop(name, '{"modle": "qwen3"}')
                with contextlib.suppress(AssertionError):
                    wait_until(lambda p=progress: p.exists() or self.over.is_set(), "a progress file", PROBE_DEADLINE_S)
                if starts == self.starts and not self.over.is_set() and self.agent.process.poll() is None:
                    self.latencies.append(time.monotonic() - began)
                (self.agent.spool / f"{name}.want").unlink(missing_ok=True)
            yield 0.5

    def killing(self) -> None:
        for _ in range(KILLS):
            time.sleep(self.seconds * KILLING / KILLS)
            self.starts += 1
            self.agent.kill()
            self.kills += 1
            self.start()

    def watching(self) -> list[Sample]:
        """One agent, for the rest of the time."""
        samples, began = [], time.monotonic()
        until = began + self.seconds * (1 - KILLING)
        while time.monotonic() < until:
            time.sleep(SAMPLE_S)
            if (code := self.agent.process.poll() if self.agent.process else 0) is not None:
                self.problems.append(f"the agent ended with {code}")
                break
            samples.append(sample(self.agent.pid))
            if len(samples) % 60 == 0:
                worst = max(self.latencies, default=0.0)
                print(f"  {time.monotonic() - began:.0f} s: {in_words(samples[-1])}; worst {worst:.3f} s", flush=True)
        return samples

    def settle(self) -> None:
        """The storm is over: every want is answered, what is wanted is ready, what is published is right."""
        self.hub.clear_faults()
        try:
            wait_until(lambda: not self.unanswered(), "every want is answered")
            for directory in list(self.agent.spool.iterdir()):
                while directory.exists():  # the agent removes progress files meanwhile
                    shutil.rmtree(directory, ignore_errors=True)
            for number, model in enumerate(AT_THE_END):
                self.agent.drop(f"end-{number}", model)
            for number in range(len(AT_THE_END)):
                self.agent.ready(f"end-{number}")
        except AssertionError as error:
            self.problems.append(f"{error}: {self.unanswered()[:20]}")
        self.agent.stop()
        for number in range(len(AT_THE_END)):
            answer = self.agent.progress(f"end-{number}")
            for model in (answer or {"models": []})["models"]:
                self.problems += wrong_files(Path(model["path"] or self.agent.store))

    def unanswered(self) -> list[str]:
        wants = [path for path in self.agent.spool.rglob("*.want") if path.is_file() and not path.is_symlink()]
        return [str(path) for path in wants if not path.with_suffix(".progress").exists()]


def overwrite(path: Path) -> None:
    """4 KiB in the middle of a file."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(os.urandom(min(4096, path.stat().st_size // 2)))


def wrong_files(path: Path) -> list[str]:
    """Files of a published model that do not have the SHA-256 of its record."""
    directory = next((at for at in (path, *path.parents) if (at / ".wantd.json").exists()), None)
    if directory is None:
        return [f"{path} is not of a published model"]
    files = json.loads((directory / ".wantd.json").read_bytes())["files"]
    sums = {file["name"]: hashlib.sha256((directory / file["name"]).read_bytes()).hexdigest() for file in files}
    return [f"{directory}/{file['name']} is wrong" for file in files if sums[file["name"]] != file["sha256"]]


def in_words(one: Sample) -> str:
    return f"{one.rss // MIB} MiB, {one.threads} threads, {one.descriptors} descriptors"


def soak(minutes: float, seed: int, root: Path) -> list[str]:
    """One run in an empty directory; prints its figures, and gives what was wrong."""
    root.chmod(0o755)  # the users have to get to the spool
    with HubProcess("--many", "300", "--size", "150000", "--gguf-size", "3000000") as hub:
        run = Soak(root, hub, minutes * 60, seed)
        try:
            samples = run.run()
        finally:
            if run.agent.process and run.agent.process.poll() is None:
                run.agent.kill()
    latencies, (before, after) = sorted(run.latencies), ends(samples)
    late = sum(one > PROMISED_S for one in latencies)
    problems = [*run.problems, *grown(samples)]
    if not latencies:
        problems.append("no probe was answered")
    print(f"{minutes:g} minutes, {USERS} users, {run.kills} kills, {run.harms} models removed or damaged")
    print(f"after warming up: {in_words(before)}")
    print(f"at the end:       {in_words(after)}; at most {max(one.rss for one in samples) // MIB} MiB")
    if latencies:
        print(f"an unrelated bad want: {len(latencies)} times, median {latencies[len(latencies) // 2] * 1000:.0f} ms, "
              f"worst {latencies[-1]:.3f} s, {late} over {PROMISED_S:g} s")  # fmt: skip
    print(f"the event loop was held {run.agent.log().count(LOOP_HELD)} times")
    for problem in problems:
        print(f"FAILED: {problem}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="wantd-soak-"))
    problems = soak(arguments.minutes, arguments.seed, root)
    if problems:
        print(f"kept: {root}")
        return 1
    shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
