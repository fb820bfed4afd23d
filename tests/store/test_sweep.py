"""What crashes leave behind is taken away, and never from under somebody who is at it."""

from __future__ import annotations

import os
import time

import pytest

from agent.core.names import StoreName
from agent.disk import TEMP_PREFIX
from agent.store.layout import NEAR_STAGE, Layout
from agent.store.locks import Locks
from agent.store.sweep import forget, leftovers, remove, remove_unfinished
from tests.store.builders import Model, put

KEY = "ab" * 32


@pytest.fixture
def locks() -> Locks:
    return Locks()


def partial(layout: Layout, key: str, changed: float) -> None:
    for path, at in ((layout.part(key), changed), (layout.journal(key), changed - 50)):
        put(path, b"bytes")
        os.utime(path, (at, at))


def test_a_partial_and_its_journal_are_one_leftover_as_young_as_the_younger(layout: Layout) -> None:
    partial(layout, KEY, 1000.0)
    partial(layout, "cd" * 20, 2000.0)
    os.mkdir(f"{layout.partial}/stage-qwen3~1")
    os.symlink("/etc/passwd", f"{layout.partial}/link.part")
    found = {left.key: left for left in leftovers(layout)}
    assert found.keys() == {KEY, "cd" * 20}
    assert found[KEY].changed_at == 1000.0
    assert sorted(found[KEY].paths) == [layout.journal(KEY), layout.part(KEY)]


def test_a_store_without_partials_has_no_leftovers(layout: Layout, locks: Locks) -> None:
    assert leftovers(layout) == []
    os.rmdir(layout.partial)
    assert leftovers(layout) == []
    remove_unfinished(layout, locks)


def test_a_leftover_is_removed_with_all_its_files(layout: Layout, locks: Locks) -> None:
    partial(layout, KEY, 1000.0)
    partial(layout, "other", 1000.0)
    (left,) = (left for left in leftovers(layout) if left.key == KEY)
    os.unlink(layout.journal(KEY))
    assert remove(left, layout, locks)
    assert sorted(os.listdir(layout.partial)) == ["other.json", "other.part"]
    assert os.listdir(layout.locks) == []


def test_a_partial_that_somebody_is_at_stays(layout: Layout, locks: Locks) -> None:
    partial(layout, KEY, 1000.0)
    (left,) = leftovers(layout)
    lock = Locks().try_acquire(layout.file_lock(KEY))
    assert lock is not None
    assert not remove(left, layout, locks)
    assert len(os.listdir(layout.partial)) == 2
    lock.release()
    assert remove(left, layout, locks)


def test_a_partial_that_was_published_is_removed_without_its_lock(layout: Layout, locks: Locks) -> None:
    partial(layout, KEY, 1000.0)
    os.link(layout.part(KEY), put(f"{layout.root}/qwen3/m.gguf", b"") + ".linked")
    lock = Locks().try_acquire(layout.file_lock(KEY))
    assert lock
    forget(KEY, layout, locks)
    assert os.listdir(layout.partial) == []
    lock.release()


def test_a_partial_that_is_no_link_to_what_was_published_is_forgotten_under_its_lock(
    layout: Layout, locks: Locks
) -> None:
    partial(layout, KEY, 1000.0)
    lock = Locks().try_acquire(layout.file_lock(KEY))
    assert lock
    forget(KEY, layout, locks)
    assert len(os.listdir(layout.partial)) == 2
    lock.release()
    forget(KEY, layout, locks)
    assert os.listdir(layout.partial) == []


def test_a_lock_that_cannot_be_had_removes_nothing(layout: Layout, locks: Locks) -> None:
    partial(layout, KEY, 1000.0)
    os.mkdir(layout.file_lock(KEY))
    (left,) = leftovers(layout)
    assert not remove(left, layout, locks)
    assert len(os.listdir(layout.partial)) == 2


@pytest.mark.parametrize("name", ["qwen3", "qwen/qwen2.5", "a~b", "x/" * 120 + "y"])
def test_a_stage_goes_when_nobody_holds_its_models_lock(name: str, layout: Layout, locks: Locks) -> None:
    stage = Model(name).stage(layout)
    lock = Locks().try_acquire(layout.model_lock(StoreName(name)))
    assert lock is not None
    remove_unfinished(layout, locks)
    assert os.path.isdir(stage.path)
    lock.release()
    remove_unfinished(layout, locks)
    assert not os.path.exists(stage.path)
    assert len(leftovers(layout)) == 2, "the files are partials still"


def test_temporary_files_of_agents_that_died_go_and_are_no_partials(layout: Layout, locks: Locks) -> None:
    partial(layout, KEY, 1000.0)
    for folder in (layout.partial, layout.locks):
        for name, changed in (("old", 1000.0), ("young", time.time())):
            path = put(f"{folder}/{TEMP_PREFIX}{name}.tmp", b"half")
            os.utime(path, (changed, changed))
    assert [left.key for left in leftovers(layout)] == [KEY]
    remove_unfinished(layout, locks)
    young = f"{TEMP_PREFIX}young.tmp"
    assert sorted(os.listdir(layout.partial)) == sorted([f"{KEY}.json", f"{KEY}.part", young])
    assert os.listdir(layout.locks) == [young]


def test_a_stage_in_a_models_directory_goes_as_well_and_the_model_stays(layout: Layout, locks: Locks) -> None:
    """Found by `make torture`: killed between the last rename and the removal of the stage."""
    for name in ("qwen3", "org/deep"):
        Model(name).publish(layout)
        put(f"{layout.root}/{name}/{NEAR_STAGE}-1a2b/m.gguf", b"left")
    put(f"{layout.root}/{NEAR_STAGE}-not-in-a-model/x", b"stays")
    lock = Locks().try_acquire(layout.model_lock(StoreName("qwen3")))
    assert lock
    remove_unfinished(layout, locks)
    assert os.path.exists(f"{layout.root}/qwen3/{NEAR_STAGE}-1a2b")
    assert not os.path.exists(f"{layout.root}/org/deep/{NEAR_STAGE}-1a2b")
    lock.release()
    remove_unfinished(layout, locks)
    assert not os.path.exists(f"{layout.root}/qwen3/{NEAR_STAGE}-1a2b")
    assert all(layout.published(Model(name).target) for name in ("qwen3", "org/deep"))
    assert os.path.exists(f"{layout.root}/{NEAR_STAGE}-not-in-a-model/x")
