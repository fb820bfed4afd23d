"""A process that publishes is killed at any moment: what is published then is whole, and the next one goes on."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
from multiprocessing.context import ForkServerContext

import pytest

from agent.store.layout import Layout
from agent.store.locks import Locks
from agent.store.sweep import remove_unfinished
from tests.harness import clean_environment
from tests.store import children
from tests.store.builders import Model, assert_true_to_record, assert_whole, tree

KILLS = 12
NAME = "org/name"
NEIGHBOUR = Model("org", {"w.gguf": b"neighbour", "name.txt": b"x"})


def assert_nothing_half(layout: Layout) -> None:
    """Whatever version a record speaks of is there with all its bytes, and the neighbour is untouched."""
    for model in children.versions(NAME):
        if published := layout.published(model.target):
            assert_true_to_record(published)
    assert_whole(layout, NEIGHBOUR)


def test_killed_at_random_moments_it_leaves_nothing_half(processes: ForkServerContext, layout: Layout) -> None:
    NEIGHBOUR.publish(layout)
    moment = random.Random(7)
    for _ in range(KILLS):
        ours, theirs = processes.Pipe()
        process = processes.Process(target=children.publish_until_killed, args=(layout.root, NAME, theirs))
        process.start()
        assert ours.poll(60)
        timer = threading.Timer(moment.uniform(0, 0.05), process.kill)
        timer.start()
        process.join()
        assert process.exitcode == -9
        assert_nothing_half(layout)
    remove_unfinished(layout, Locks())
    last = children.versions(NAME)[2]
    last.publish(layout)
    assert_whole(layout, last)
    assert_nothing_half(layout)
    kept = [name for name in tree(f"{layout.root}/{NAME}") if ".before-wantd" not in name]
    assert set(kept) >= {*last.files, ".wantd.json", "manifest.json", "model.gguf"}
    assert not [name for name in os.listdir(layout.partial) if name.startswith("stage-")]


SCRIPT = "import sys; from tests.store.children import publish_once; publish_once(*sys.argv[1:3], 1, 1)"
RENAME = "rename,renameat,renameat2"  # whichever the C library makes of it
SYNC = "fsync,fdatasync"


@pytest.mark.skipif(not shutil.which("strace"), reason="strace kills at the exact call")
@pytest.mark.parametrize(
    ("calls", "number"),
    [(RENAME, number) for number in range(1, 10)] + [(SYNC, number) for number in (2, 6, 9)],
)
def test_killed_at_an_exact_step_of_a_merge_the_next_one_makes_it_whole(
    calls: str, number: int, layout: Layout
) -> None:
    NEIGHBOUR.publish(layout)
    old, new, _ = children.versions(NAME)
    old.publish(layout)
    new.stage(layout).drop()  # the partials are there already: the process's first calls are the publication's
    killer = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={calls}:signal=SIGKILL:when={number}"]
    ended = subprocess.run(
        [*killer, sys.executable, "-B", "-c", SCRIPT, layout.root, NAME],
        env=clean_environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    if b"ptrace" in ended.stderr:
        pytest.skip("tracing is not allowed here")
    assert ended.returncode in (-9, 137), ended.stderr
    assert_nothing_half(layout)
    remove_unfinished(layout, Locks())
    new.publish(layout)
    assert_whole(layout, new)
    assert_nothing_half(layout)
