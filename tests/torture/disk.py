"""Disks that are full, fail, refuse, vanish, and are two: what was promised holds, and it goes on by itself."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.harness import AgentProcess, wait_until
from tests.hub.process import HubProcess
from tests.torture.cases import Case
from tests.torture.lives import GGUF, world

MIB = 1024 * 1024
SLACK = MIB  # bytes: a granule, and what was in the buffers of sockets that were closed, which the Hub counts as sent
FILE = "w-Q4_K_M.gguf"
REPO = "torture/twin-a"
RATE = 800_000  # bytes per second of each answer, so that there is a middle to meddle in


def agent_in(root: Path, **more: Any) -> AgentProcess:
    """An agent that looks around every second."""
    settings: dict[str, Any] = {
        "catalog__path": world().catalog,
        "policy__allow": "any",
        "transfer__connections": 4,
        "transfer__retry_min_s": 0.1,
        "transfer__retry_max_s": 0.5,
        "store__min_free_bytes": 0,
        "scheduler__rescan_s": 1,
        "scheduler__reap_s": 1,
    }
    return AgentProcess(root, hub().endpoint, **(settings | more))


def hub() -> HubProcess:
    return world().hub


@contextlib.contextmanager
def slowly() -> Iterator[None]:
    """The Hub's storage sends slowly, and has counted nothing yet."""
    hub().reset()
    hub().fault("cdn/*", max_rate=RATE)
    try:
        yield
    finally:
        hub().clear_faults()


@contextlib.contextmanager
def tmpfs(path: Path, size: int) -> Iterator[None]:
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "wantd-torture", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def right(path: str, repo: str, file: str) -> None:
    wanted = hub().repos()[repo]["files"][file]["sha256"]
    assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == wanted, f"{path} has other bytes than {repo}"


def sent(repo: str = REPO, file: str = FILE) -> int:
    return int(hub().stats()["bytes_sent"].get(f"{repo}/{file}", 0))


def waits_for(agent: AgentProcess, name: str, what: str) -> Callable[[], Any]:
    return lambda: ((agent.progress(name) or {}).get("waiting") or {}).get("for") == what


def moving(agent: AgentProcess, name: str = "x") -> bool:
    return ((agent.progress(name) or {}).get("bytes_done") or 0) > 300_000


# -- full -----------------------------------------------------------------------------------------------------------


def full_before(root: Path) -> None:
    """No room at first: it waits and says how much it needs; room is made, and it goes on by itself."""
    with tmpfs(root / "a" / "models", 4 * MIB):
        agent = agent_in(root / "a")
        filler = agent.store / "somebody-elses.bin"
        filler.write_bytes(bytes(3_500_000))
        with agent:
            hub().reset()
            agent.drop("x", "qwen3")
            wait_until(waits_for(agent, "x", "disk"), "it waits for room")
            waiting = (agent.progress("x") or {})["waiting"]
            assert waiting["need_bytes"] > waiting["free_bytes"], waiting
            assert sent() == 0, "not a byte was fetched for nothing"
            filler.unlink()
            right(agent.ready("x"), REPO, FILE)


def full_in_the_middle(root: Path) -> None:
    """Somebody else takes all the room while files come; what is there is kept, and nothing comes twice.

    Small files: large ones have their room set aside when they are begun.
    """
    one = 700_000
    parts = {f"part-{number:02d}.safetensors": os.urandom(one) for number in range(12)}
    hub().commit("torture/parts", {"config.json": b"{}", "tokenizer.json": b"{}", **parts})
    with tmpfs(root / "a" / "models", 12 * MIB), slowly():
        agent = agent_in(root / "a", transfer__connections=1)
        with agent:
            agent.drop("x", {"model": "torture/parts", "files": ["*"]})
            wait_until(lambda: ((agent.progress("x") or {}).get("bytes_done") or 0) > 2 * one, "bytes come")
            filler = agent.store / "somebody-elses.bin"
            fill(filler)
            wait_until(waits_for(agent, "x", "disk"), "it waits for room")
            filler.unlink()
            hub().clear_faults()
            directory = Path(agent.ready("x"))
            assert {path.name: path.read_bytes() for path in directory.glob("part-*")} == parts
    came = sum(sent("torture/parts", name) for name in parts)
    assert came <= (len(parts) + 1) * one + SLACK, f"{came} bytes came for {len(parts) * one}"  # one was under way


def fill(path: Path) -> None:
    """Take all the room that is left."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def full_spool(root: Path) -> None:
    """No room for answers: the want is carried out all the same, and answered once there is room."""
    with tmpfs(root / "a" / "spool", MIB):
        agent = agent_in(root / "a")
        filler = agent.spool / ".filler"
        agent.drop("x", "qwen3")
        fill(filler)
        with agent:
            wait_until(lambda: (agent.store / "qwen3" / ".wantd.json").exists(), "the model is published")
            filler.unlink()
            right(agent.ready("x"), REPO, FILE)


# -- failing --------------------------------------------------------------------------------------------------------


def eio(call: str, times: int) -> Callable[[Path], None]:
    """The disk answers EIO to a call on the part file: what was written since the last good sync is not believed."""

    def run(root: Path) -> None:
        agent = agent_in(root / "a")
        sha = hub().repos()[REPO]["files"][FILE]["sha256"]
        part = agent.store / ".partial" / f"{sha}.part"
        part.parent.mkdir(parents=True)
        command = ["strace", "-f", "-qq", "-o", str(root / "strace"), "-P", str(part), "-e", f"trace={call}",
                   "-e", f"inject={call}:error=EIO:when=1..{times}"]  # fmt: skip
        hub().reset()
        with agent.log_path.open("ab") as log:
            agent.process = subprocess.Popen(
                [*command, sys.executable, "-m", "agent", "run"], env=agent.environ, stdout=log, stderr=log, cwd=root
            )
        agent.drop("x", "qwen3")
        try:
            wait_until(lambda: (agent.progress("x") or {}).get("state") == "ready", "it goes on by itself")
            right(agent.ready("x"), REPO, FILE)
        finally:
            os.kill((agent.progress("x") or {})["agent"]["pid"], signal.SIGTERM)  # strace ends with it
            agent.process.wait(15)
        assert "(INJECTED)" in (root / "strace").read_text(), "the fault was produced"
        if call in ("fsync", "fdatasync"):
            assert sent() >= 2 * GGUF, f"{sent()} bytes: what a failed sync left in the cache was believed"

    return run


# -- refusing -------------------------------------------------------------------------------------------------------


def read_only(root: Path) -> None:
    """The store's file system turns read-only in the middle: it is said; turned back, it goes on by itself."""
    agent = agent_in(root / "a")
    with agent:
        agent.drop("first", "nest")
        agent.ready("first")
        with read_only_mount(agent.store):
            agent.drop("again", "nest")
            agent.ready("again")  # what is there is served
            agent.drop("x", "qwen3")
            assert agent.failed("x")["code"] == "store_unwritable"
        wait_until(lambda: (agent.progress("x") or {})["state"] == "ready", "it goes on by itself")
        right(agent.ready("x"), REPO, FILE)


@contextlib.contextmanager
def read_only_mount(path: Path) -> Iterator[None]:
    """The directory once more over itself, read-only: no remount, which files that are open for writing forbid."""
    subprocess.run(["mount", "--bind", str(path), str(path)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


# -- vanishing ------------------------------------------------------------------------------------------------------


def store_removed(root: Path) -> None:
    """The store is removed while bytes come, and while all is quiet: each time it is made again and filled."""
    agent = agent_in(root / "a")
    with slowly(), agent:
        agent.drop("x", "qwen3")
        wait_until(lambda: moving(agent), "bytes come")
        remove_tree(agent.store)
        hub().clear_faults()
        wait_until(lambda: (agent.store / "qwen3" / ".wantd.json").exists(), "it is fetched again")
        right(agent.ready("x"), REPO, FILE)
        remove_tree(agent.store)
        wait_until(lambda: (agent.store / "qwen3" / ".wantd.json").exists(), "a wanted model comes back")
        right(agent.ready("x"), REPO, FILE)


def spool_removed(root: Path) -> None:
    """The spool is removed and made again, in the middle of a download: what is in it then is what is wanted."""
    agent = agent_in(root / "a")
    with slowly(), agent:
        agent.drop("x", "qwen3")
        wait_until(lambda: moving(agent), "bytes come")
        remove_tree(agent.spool)
        agent.spool.mkdir(exist_ok=True)
        hub().clear_faults()
        agent.drop("y", "nest")
        agent.ready("y")
        assert agent.progress("x") is None, "nobody asks for it any more"
        remove_tree(agent.spool)
        wait_until(agent.spool.exists, "the agent makes its spool again")
        agent.drop("z", "twin")
        agent.ready("z")
        again = agent.wantd("run")
        assert again.returncode != 0, "the new directory is guarded like the old one"
        assert "another agent already serves" in again.stderr, again.stderr


def remove_tree(path: Path) -> None:
    """Remove it while somebody writes into it."""
    while path.exists():
        shutil.rmtree(path, ignore_errors=True)
        if path.exists() and not any(path.iterdir()):
            with contextlib.suppress(OSError):
                path.rmdir()
        return


# -- two ------------------------------------------------------------------------------------------------------------


def two_file_systems(root: Path) -> None:
    """A part of the store on another file system than the partials: no rename leads there, and it is whole in it."""
    agent = agent_in(root / "a")
    hub().commit("far/model", {FILE: os.urandom(2 * MIB)})
    with tmpfs(agent.store / "far", 16 * MIB), agent:
        agent.drop("x", "far/model")
        path = agent.ready("x")
        right(path, "far/model", FILE)
        assert os.stat(path).st_dev != os.stat(agent.store / ".partial").st_dev
        record = json.loads((Path(path).parent / ".wantd.json").read_bytes())
        assert record["files"][0]["size"] == 2 * MIB
        wait_until(lambda: not any((agent.store / ".partial").iterdir()), "no byte is left behind")


def partials_elsewhere(root: Path) -> None:
    """The partials on a file system of their own."""
    agent = agent_in(root / "a")
    with tmpfs(agent.store / ".partial", 32 * MIB), agent:
        agent.drop("x", ["qwen3", "nest"])
        right(agent.ready("x"), REPO, FILE)
        wait_until(lambda: not any((agent.store / ".partial").iterdir()), "no byte is left behind")


def cases(_: int) -> Iterator[Case]:
    yield Case("no room (ENOSPC) at first, then room is made", full_before, needs=("root",))
    yield Case("no room (ENOSPC) in the middle, then room is made", full_in_the_middle, needs=("root",))
    yield Case("no room for progress files", full_spool, brief=False, needs=("root",))
    yield Case("EIO on fdatasync of a part file", eio("fdatasync", 1), needs=("strace",))
    yield Case("EIO on three writes to a part file", eio("pwrite64", 3), needs=("strace",))
    yield Case("EIO on ftruncate of a part file", eio("ftruncate", 1), brief=False, needs=("strace",))
    yield Case("the store turns read-only", read_only, needs=("root",))
    removed = "removed while bytes come, and while all is quiet"
    yield Case("the store is removed", store_removed, faults={f"the store is {removed}": 2})
    yield Case("the spool is removed", spool_removed, faults={f"the spool is {removed}": 2})
    yield Case("a model on another file system than its partials", two_file_systems, needs=("root",))
    yield Case("the partials on a file system of their own", partials_elsewhere, brief=False, needs=("root",))
