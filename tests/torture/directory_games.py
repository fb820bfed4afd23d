"""A producer who plays with his directories, as a real user of his own, while the agent, as another, works in them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.harness import AgentProcess, clean_environment
from tests.torture.bystander import Bystander
from tests.torture.cases import Case
from tests.torture.lives import world
from tests.torture.load import hub

AGENT, PRODUCER = 40_001, 40_002  # user ids that no system gives out
SWAPS_S = 4.0  # a game of the short form; 20 s in the long one

# Every game gets a directory of the producer's own in the spool, and somebody else's directory to lead the agent to.
GAMES: dict[str, str] = {  # by row of the table
    "a directory swapped for a symbolic link and back, under a flood": """
for number in range(20):
    put(f"{own}/x/w{number}")
while time.monotonic() < until:
    put(f"{own}/x/w{count % 20}", count)
    with contextlib.suppress(OSError):
        os.unlink(f"{own}/x/w{(count + 7) % 20}.want")
    os.rename(f"{own}/x", f"{own}/.away")
    os.symlink(victim, f"{own}/x")
    time.sleep(count % 5 / 200)
    os.unlink(f"{own}/x")
    os.rename(f"{own}/.away", f"{own}/x")
    count += 1
""",
    "a directory far above a want swapped for a symbolic link": """
os.makedirs(f"{own}/x/y/z", exist_ok=True)
while time.monotonic() < until:
    put(f"{own}/x/y/z/w{count % 20}", count)
    os.rename(f"{own}/x", f"{own}/.away")
    os.symlink(os.path.dirname(victim), f"{own}/x")
    time.sleep(count % 5 / 200)
    os.unlink(f"{own}/x")
    os.rename(f"{own}/.away", f"{own}/x")
    count += 1
""",
    "a directory swapped for a FIFO, a file, nothing": """
while time.monotonic() < until:
    put(f"{own}/x/w{count % 20}", count)
    os.rename(f"{own}/x", f"{own}/.away")
    if count % 3 == 0:
        os.mkfifo(f"{own}/x")
    elif count % 3 == 1:
        open(f"{own}/x", "w").close()
    time.sleep(0.01)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{own}/x")
    os.rename(f"{own}/.away", f"{own}/x")
    count += 1
""",
    "a directory closed to the agent and opened again": """
while time.monotonic() < until:
    put(f"{own}/x/w{count % 20}", count)
    os.chmod(f"{own}/x", (0o700, 0o711, 0o755, 0o777)[count % 4])
    time.sleep(0.01)
    count += 1
""",
    "directories moved into one another": """
for name in "abc":
    os.makedirs(f"{own}/{name}", exist_ok=True)
while time.monotonic() < until:
    for here, there in (("a", "b/a"), ("b", "c/b"), ("c/b", "b"), ("b/a", "a")):
        with contextlib.suppress(OSError):
            os.rename(f"{own}/{here}", f"{own}/{there}")
        with contextlib.suppress(OSError):
            put(f"{own}/{there}/w{count % 20}", count)
        count += 1
""",
    "a storm of mkdir, rename and rm -r": """
while time.monotonic() < until:
    folder = f"{own}/d{count % 50}"
    with contextlib.suppress(OSError):
        os.makedirs(f"{folder}/e/f", exist_ok=True)
        put(f"{folder}/e/w{count}")
        os.rename(folder, f"{own}/r{count % 30}")
    if count % 7 == 0:
        shutil.rmtree(f"{own}/r{count % 30}", ignore_errors=True)
    count += 1
""",
}  # fmt: skip
PRELUDE = """
import contextlib, os, shutil, sys, time
own, victim, until = sys.argv[1], sys.argv[2], time.monotonic() + float(sys.argv[3])
count = 0
os.umask(0)
os.makedirs(f"{own}/x", exist_ok=True)

def put(path, text="no-such-model"):
    with open(f"{path}.want", "w") as file:
        file.write(f"{text}\\n")

"""


def as_user(number: int) -> list[str]:
    return ["setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups"]


@contextlib.contextmanager
def open_to_all() -> Iterator[Path]:
    """A directory that every user may enter: those of the test-suite are closed."""
    root = Path(tempfile.mkdtemp(prefix="wantd-users-"))
    root.chmod(0o755)
    yield root
    shutil.rmtree(root, ignore_errors=True)


def of_another_user(root: Path, **more: object) -> AgentProcess:
    """An agent that runs as `AGENT`."""
    agent = AgentProcess(root / "a", hub().endpoint, catalog__path=root / "catalog.json", **more)
    (root / "catalog.json").write_bytes(world().catalog.read_bytes())
    for path in (agent.root, agent.spool):
        os.chown(path, AGENT, AGENT)
    agent.spool.chmod(0o1777)
    agent.prefix = as_user(AGENT)
    return agent


def game(moves: str, *, seconds: float, timed: bool) -> Callable[[Path], None]:
    def run(_: Path) -> None:
        with open_to_all() as root, of_another_user(root) as agent:
            victim = root / "victim" / "y" / "z"
            victim.mkdir(parents=True)
            for number in range(20):
                (victim / f"w{number}.progress").write_text("precious")
                (victim / f"w{number}.want").write_text("no-such-model")
            os.chown(victim, AGENT, AGENT)  # where the agent could write, and the producer could not
            before = whole(root / "victim")
            own = agent.spool / "producer"
            command = [*as_user(PRODUCER), sys.executable, "-c", PRELUDE + moves, str(own), str(victim), str(seconds)]
            with Bystander(agent, timed=timed):
                subprocess.run(command, check=True, timeout=seconds + 60, cwd="/", env=clean_environment())
            assert whole(root / "victim") == before
            assert watched_again(agent) or not timed, "the watch is deaf"
            assert agent.stop() == 0
            assert "Traceback" not in agent.log(), agent.log()[-3000:]

    return run


def whole(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def watched_again(agent: AgentProcess) -> bool:
    """After a game a new want is heard at once."""
    began = time.monotonic()
    agent.drop("after", "no-such-model")
    agent.failed("after")
    return time.monotonic() - began < 5.0


def stopped_in_a_storm(_: Path) -> None:
    """SIGTERM in the middle of it: a clean end."""
    with open_to_all() as root, of_another_user(root) as agent:
        moves = PRELUDE + GAMES["a storm of mkdir, rename and rm -r"]
        own = agent.spool / "producer"
        command = [*as_user(PRODUCER), sys.executable, "-c", moves, str(own), "/", "5"]
        producer = subprocess.Popen(command, cwd="/", env=clean_environment())
        try:
            agent.drop("x", "no-such-model")
            agent.failed("x")
            assert agent.stop() == 0
        finally:
            producer.wait(60)
        assert "Traceback" not in agent.log(), agent.log()[-3000:]


def cases(_: int) -> Iterator[Case]:
    needs = ("root", "setpriv")
    for row, moves in GAMES.items():
        yield Case(row, game(moves, seconds=SWAPS_S, timed=False), needs=needs)
        yield Case(f"{row}, longer", game(moves, seconds=20, timed=True), brief=False, needs=needs, faults={row: 1})
    yield Case("SIGTERM in such a storm", stopped_in_a_storm, needs=needs)
