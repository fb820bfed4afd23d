"""What the processes do that tests start: hold locks, count under a lock, publish until they are killed."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from multiprocessing.connection import Connection

from agent.store.hub_view import HubView
from agent.store.inventory import Inventory
from agent.store.locks import Lock, Locks
from tests.store.builders import MODES, Model, make_layout

PAUSE_S = 0.0005


def acquire(locks: Locks, path: str) -> Lock:
    """Take the lock, trying until it is free."""
    while True:
        if lock := locks.try_acquire(path):
            return lock
        time.sleep(PAUSE_S)


def hold(path: str, progress: float, talk: Connection) -> None:
    """Hold a lock until told to release it, or killed."""
    lock = acquire(Locks(), path)
    lock.progress = progress
    lock.beat()
    talk.send("held")
    talk.recv()
    lock.release()
    talk.send("released")


def hold_with_a_child(path: str, talk: Connection) -> None:
    """Hold a lock, and start a program that outlives this process."""
    acquire(Locks(), path)
    child = subprocess.Popen(["sleep", "300"])
    talk.send(child.pid)
    talk.recv()


def count(path: str, counter: str, rounds: int) -> None:
    """Add to a number in a file, in steps that only a lock keeps apart."""
    locks = Locks()
    for _ in range(rounds):
        lock = acquire(locks, path)
        with open(counter, encoding="ascii") as file:
            number = int(file.read())
        time.sleep(0)
        with open(counter, "w", encoding="ascii") as file:
            file.write(str(number + 1))
        lock.release()


def versions(name: str) -> list[Model]:
    """Three choices of files for one directory, with one file in common and one that turns up in a folder."""
    return [
        Model(name, {"m.gguf": b"one" * 1000, "a.json": b"{}", "sub/x.txt": b"1"}, commit="1" * 40),
        Model(name, {"m.gguf": b"two" * 2000, "a.json": b"{}", "sub/y/z.txt": b"2"}, commit="2" * 40),
        Model(name, {"n.gguf": b"three" * 500, "b.json": b"[]"}, commit="3" * 40),
    ]


def publish_until_killed(root: str, name: str, talk: Connection) -> None:
    """Publish one version after the other in one place, until killed."""
    layout = make_layout(root)
    talk.send("started")
    for model in itertools.cycle(versions(name)):
        model.publish(layout)


def publish_once(root: str, name: str, at: int, rounds: int) -> None:
    """Publish a version some times, with no lock at all."""
    layout = make_layout(root)
    for _ in range(rounds):
        versions(name)[at].publish(layout)


def leave(path: str) -> None:
    """Die while holding a lock, its file left behind."""
    acquire(Locks(), path)
    os._exit(9)


def publish_and_mend_until_killed(root: str, hub: str, talk: Connection) -> None:
    """Publish one version after the other, removing it in between, and keep the view of the store, until killed."""
    layout = make_layout(root)
    view = HubView(hub, layout, Inventory(layout), MODES)
    talk.send("begun")
    for model in itertools.cycle(versions("killed")):
        view.show(model.publish(layout).record)
        view.mend()
        shutil.rmtree(f"{root}/killed")
        view.mend()
