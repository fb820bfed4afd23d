"""Published files that somebody damages: no other model ever gets the bytes, and what is wanted is right again.

Each fault is done to a published model while an agent runs. Then another model with the same file is wanted, and the
first one again: both must end with the bytes of the Hub.
"""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.harness import AgentProcess, wait_until
from tests.torture.cases import Case
from tests.torture.disk import FILE, REPO, agent_in, right
from tests.torture.lives import sha256, world

OTHER = "other-Q4_K_M.gguf"  # of the model `twin`: the same bytes


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(os.urandom(4096))


def overwrite_and_hide(path: Path) -> None:
    before = path.stat()
    overwrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path) -> None:
    """Another file with the size and the times of the old one, as a careless `cp -p` or a restore leaves it."""
    before, other = path.stat(), path.with_name("other")
    shutil.copyfile(path, other)
    overwrite(other)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)


def zero_the_end(path: Path) -> None:
    """What a disk that was full leaves behind: the length is right, the end is a hole."""
    size = path.stat().st_size
    os.truncate(path, size - 8192)
    os.truncate(path, size)


def through_the_view(path: Path) -> None:
    overwrite(next(blob for blob in path.parents[2].glob("hub/*/blobs/*") if blob.samefile(path)))


def through_model_gguf(path: Path) -> None:
    overwrite(path.parent / "model.gguf")


def map_and_write(path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[4096:8192] = os.urandom(4096)
        mapped.flush()


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def remove(path: Path) -> None:
    path.unlink()


HARM: dict[str, Callable[[Path], None]] = {
    "4 KiB are overwritten, size the same": overwrite,
    "4 KiB are overwritten, size and mtime the same": overwrite_and_hide,
    "it is replaced by another file of its size and mtime": replace,
    "its end is a hole": zero_the_end,
    "4 KiB are overwritten through the view": through_the_view,
    "4 KiB are overwritten through model.gguf": through_model_gguf,
    "4 KiB are overwritten by mmap": map_and_write,
    "it is cut short": cut,
    "it is removed": remove,
}


def damaged(harm: Callable[[Path], None], *, restart: bool) -> Callable[[Path], None]:
    """The harm to a model that is published, with the agent running on or started again afterwards."""

    def run(root: Path) -> None:
        agent = agent_in(root / "a")
        with agent:
            agent.drop("x", "qwen3")
            path = Path(agent.ready("x"))
            (agent.spool / "x.want").unlink()
            wait_until(lambda: agent.progress("x") is None, "it is no longer wanted")
            if not restart:
                harm(path)
                both_are_right(agent)
        if restart:
            harm(path)
            with agent:
                both_are_right(agent)

    return run


def both_are_right(agent: AgentProcess) -> None:
    agent.drop("twin", "twin")
    right(agent.ready("twin"), "torture/twin-b", OTHER)
    agent.drop("again", "qwen3")
    path = agent.ready("again")
    right(path, REPO, FILE)
    right(str(Path(path).with_name("model.gguf")), REPO, FILE)


def while_wanted(harm: Callable[[Path], None]) -> Callable[[Path], None]:
    """The harm to a model that a want names: mended without anybody doing anything."""

    def run(root: Path) -> None:
        with agent_in(root / "a") as agent:
            agent.drop("x", ["qwen3", "twin"])
            path = Path(agent.ready("x"))
            harm(path)
            for name, repo, file in (("qwen3", REPO, FILE), ("twin", "torture/twin-b", OTHER)):
                wanted = world().hub.repos()[repo]["files"][file]["sha256"]
                there = agent.store / name / file
                wait_until(partial(is_right, there, wanted), f"{name} is right again")
            agent.ready("x")

    return run


def is_right(path: Path, wanted: str) -> bool:
    try:
        return sha256(path) == wanted
    except FileNotFoundError:
        return False


def cases(_: int) -> Iterator[Case]:
    """Each harm beside a running agent, before one is started again, and to a model that a want names."""
    for number, (what, harm) in enumerate(HARM.items()):
        row = {f"a published file: {what}": 1}
        yield Case(f"{what}, agent running", damaged(harm, restart=False), brief=number < 3, faults=row)
        yield Case(f"{what}, agent restarted", damaged(harm, restart=True), brief=False, faults=row)
        # Where size and mtime are the same, it takes another model that wants the file to find out.
        if harm not in (overwrite_and_hide, replace):
            yield Case(f"{what}, while wanted", while_wanted(harm), brief=number == 4, faults=row)
