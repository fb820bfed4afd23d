"""Stamps: what counts as written to, what is noted when, and that no broken file of stamps is believed."""

from __future__ import annotations

import os
import time

from agent.store.layout import Layout
from agent.store.stamps import Stamp, read_stamps, stamp_of, write_stamps
from agent.store.sweep import remove_stale_stamps
from tests.store.builders import ENDPOINT, Model, put

STAMP = Stamp(inode=7, size=10, mtime_ns=1_000, ctime_ns=2_000)


def test_links_and_moves_are_no_writing(layout: Layout) -> None:
    assert not STAMP.written_since(STAMP)
    assert not Stamp(8, 10, 1_000, 3_000).written_since(STAMP)
    assert Stamp(7, 11, 1_000, 2_000).written_since(STAMP)
    assert Stamp(7, 10, 999, 2_000).written_since(STAMP), "an older file is another one"


def test_stamps_that_cannot_be_read_are_none(layout: Layout) -> None:
    path = layout.stamps_in(f"{layout.root}/org/name")
    assert read_stamps(path) == {}
    write_stamps(path, {"m.gguf": STAMP})
    assert read_stamps(path) == {"m.gguf": STAMP}
    for broken in (b"", b'{"m.gguf": [7, 10, 1000', b"[]", b'{"m.gguf": 7}'):
        put(path, broken)
        assert read_stamps(path) == {}


def test_ids_that_differ_have_stamps_of_their_own(layout: Layout) -> None:
    names = ("org/name", "org--name", "org%name", "org", "a" * 250 + "/b", "a" * 250 + "/c")
    assert len({layout.stamps_in(f"{layout.root}/{name}") for name in names if "%" not in name}) == len(names) - 1
    assert all(len(os.path.basename(layout.stamps_in(f"{layout.root}/{name}"))) <= 255 for name in names)


def test_a_model_that_was_written_to_is_not_as_it_was_published(layout: Layout) -> None:
    model = Model()
    published = model.publish(layout)
    assert layout.published(model.target)
    with open(published.path, "r+b") as file:
        file.write(b"ggUF")
    os.utime(published.path, ns=(1, 1))
    assert layout.published(model.target) is None
    found = layout.look(model.target)
    assert found
    assert [file.name for file in found[1]] == ["m-Q4_K_M.gguf"]


def test_what_was_changed_before_it_was_published_gets_no_stamp(layout: Layout) -> None:
    model = Model()
    stage = model.stage(layout)
    published = stage.publish(model.record, ENDPOINT)
    with open(published.path, "r+b") as file:
        file.write(b"ggUF")
    os.utime(published.path, ns=(1, 1))
    stage.note_stamps()
    assert read_stamps(layout.stamps_in(published.directory)).keys() == {"README.md"}


def test_stamps_go_when_their_model_is_published_again(layout: Layout) -> None:
    model = Model()
    published = model.publish(layout)
    os.utime(f"{published.directory}/README.md", ns=(1, 1))
    model.stage(layout).publish(model.record, ENDPOINT)  # killed before it noted anything
    assert layout.published(model.target), "nothing is held against the new files"


def test_stamps_of_models_that_are_gone_are_removed(layout: Layout) -> None:
    stays, goes, new = (Model(name).publish(layout) for name in ("org/stays", "goes", "new"))
    for published in (goes, new):
        os.unlink(f"{published.directory}/.wantd.json")
    old = time.time() - 3600
    for published in (stays, goes):
        os.utime(layout.stamps_in(published.directory), (old, old))
    remove_stale_stamps(layout)
    there = [stamp_of(layout.stamps_in(published.directory)) is not None for published in (stays, goes, new)]
    assert there == [True, False, True]
