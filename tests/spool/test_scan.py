"""The scan is the truth: it finds every want, misses none, and takes nothing for gone that it could not see."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest

from agent.disk import TEMP_PREFIX
from agent.spool.files import Stamp, list_wants
from agent.spool.scan import AGAIN_S, DEPTH, SETTLED_S, Found, Scanner

Drop = Callable[[], AbstractContextManager[None]]


@dataclass
class Seen:
    """What the agent remembers of a want."""

    stamp: Stamp | None
    unwritable: str | None = None


def scan(root: str, known: Mapping[str, Seen]) -> Found:
    """One look by a scanner that has never looked, at everything."""
    return Scanner(root, lambda folder, *_: None).scan(known, everything=True)


def put(path: str, text: str = "qwen3") -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def known(*paths: str) -> dict[str, Seen]:
    return {path: Seen(Stamp.of(os.lstat(path))) for path in paths}


def below(root: str, paths: list[str]) -> list[str]:
    return sorted(path[len(root) + 1 :] for path in paths)


def test_what_ends_in_want_is_a_want_and_nothing_else_is(spool: str) -> None:
    for name in ("a.want", "b.WANT", "c.want.tmp", ".d.want", "want", ".want", "e.wants", "f want", "g.txt", "h .want"):
        put(f"{spool}/{name}")
    assert below(spool, scan(spool, {}).changed) == ["a.want", "h .want"]


def test_folders_are_looked_into_four_levels_down_and_no_further(spool: str) -> None:
    folder = spool
    for level in range(DEPTH + 2):
        put(f"{folder}/{level}.want")
        folder += f"/d{level}"
    found = scan(spool, {}).changed
    assert [path.rpartition("/")[2] for path in sorted(found, key=len)] == [f"{n}.want" for n in range(DEPTH + 1)]


def test_dot_folders_and_linked_folders_are_not_entered(spool: str) -> None:
    put(f"{spool}/.hidden/a.want")
    put(f"{spool}/real/b.want")
    os.symlink("real", f"{spool}/link")
    os.symlink("..", f"{spool}/real/up")
    assert below(spool, scan(spool, {}).changed) == ["real/b.want"]


def test_whatever_is_named_as_a_want_is_found_so_that_it_can_be_answered(spool: str) -> None:
    os.mkdir(f"{spool}/dir.want")
    put(f"{spool}/dir.want/inner.want")
    os.mkfifo(f"{spool}/fifo.want")
    os.symlink("nowhere", f"{spool}/link.want")
    assert below(spool, scan(spool, {}).changed) == ["dir.want", "fifo.want", "link.want"]


def test_only_what_changed_since_is_told(spool: str) -> None:
    paths = [put(f"{spool}/{name}.want") for name in "abcde"]
    memory = known(*paths)
    memory[paths[4]].stamp = None
    put(paths[0], "other")
    os.utime(paths[1], (1, 1))
    os.rename(put(f"{spool}/new"), paths[2])
    assert sorted(scan(spool, memory).changed) == [*paths[:3], paths[4]]
    assert scan(spool, known(*paths)).changed == []


def test_what_is_gone_is_told(spool: str) -> None:
    kept, gone, inside = (put(f"{spool}/{name}.want") for name in ("kept", "gone", "folder/inside"))
    memory = known(kept, gone, inside)
    os.unlink(gone)
    os.unlink(inside)
    os.rmdir(f"{spool}/folder")
    assert sorted(scan(spool, memory).removed) == [inside, gone]


def test_wants_in_a_spool_that_is_gone_are_gone(spool: str) -> None:
    path = put(f"{spool}/in/a.want")
    memory = known(path)
    os.rename(f"{spool}/in", f"{spool}/.away")
    found = scan(f"{spool}/in", memory)
    assert (found.changed, found.removed) == ([], [path])
    put(f"{spool}/in")
    assert scan(f"{spool}/in", memory).removed == [path]


@pytest.mark.parametrize("locked", ["", "team", "team/deep"])
def test_a_folder_that_cannot_be_read_makes_no_want_vanish(locked: str, spool: str, unprivileged: Drop) -> None:
    paths = [put(f"{spool}/root.want"), put(f"{spool}/team/a.want"), put(f"{spool}/team/deep/b.want")]
    other = put(f"{spool}/team-b/c.want")
    memory = known(*paths, other)
    os.unlink(other)
    folder = f"{spool}/{locked}".rstrip("/")
    os.chmod(folder, 0)
    try:
        with unprivileged():
            found = scan(spool, memory)
    finally:
        os.chmod(folder, 0o777)
    assert found.changed == []
    assert found.removed == ([] if locked == "" else [other])


def test_a_folder_that_may_be_listed_and_not_entered_makes_no_want_vanish(spool: str, unprivileged: Drop) -> None:
    path = put(f"{spool}/team/a.want")
    memory = known(path)
    os.chmod(f"{spool}/team", 0o444)  # names can be read, files behind them not
    try:
        with unprivileged():
            found = scan(spool, memory)
    finally:
        os.chmod(f"{spool}/team", 0o777)
    assert (found.changed, found.removed) == ([], [])


def test_answers_without_a_want_are_removed_and_others_are_not(spool: str) -> None:
    put(f"{spool}/orphan.progress")
    put(f"{spool}/team/orphan.progress")
    put(f"{spool}/.dot.progress")
    put(f"{spool}/kept.progress")
    put(f"{spool}/kept.want")
    os.symlink("nowhere", f"{spool}/link.want")
    put(f"{spool}/link.progress")
    os.symlink("kept.want", f"{spool}/orphan-link.progress")
    scan(spool, {})
    assert sorted(os.listdir(spool)) == [
        ".dot.progress",
        "kept.progress",
        "kept.want",
        "link.progress",
        "link.want",
        "team",
    ]
    assert os.listdir(f"{spool}/team") == []


def test_listing_finds_the_same_wants_and_removes_nothing(spool: str) -> None:
    for name in ("a.want", "team/b.want", "team/deep/c.want", ".hidden/d.want", ".e.want", "orphan.progress"):
        put(f"{spool}/{name}")
    assert below(spool, list(list_wants(spool))) == ["a.want", "team/b.want", "team/deep/c.want"]
    assert os.path.exists(f"{spool}/orphan.progress")


def test_a_want_that_lost_its_answer_is_told_unless_it_cannot_have_one(spool: str) -> None:
    lost, silent, answered, new = (put(f"{spool}/{name}.want") for name in ("lost", "silent", "answered", "new"))
    put(f"{spool}/answered.progress")
    memory = known(lost, silent, answered)
    memory[silent].unwritable = "Permission denied"
    found = scan(spool, memory)
    assert found.unanswered == [lost]
    assert found.changed == [new]


def test_temporary_files_of_dead_agents_are_cleared_wherever_they_lie(spool: str) -> None:
    for folder in ("", "/team"):
        for name, age in (("old", 3600), ("young", 0)):
            path = put(f"{spool}{folder}/{TEMP_PREFIX}{name}.tmp")
            os.utime(path, (time.time() - age,) * 2)
    scan(spool, {})
    assert sorted(os.listdir(spool)) == [f"{TEMP_PREFIX}young.tmp", "team"]
    assert os.listdir(f"{spool}/team") == [f"{TEMP_PREFIX}young.tmp"]


def test_names_that_are_no_text_are_wants_like_others(spool: str) -> None:
    names = [b"caf\xe9.want", b"a\nb.want", "モデル.want".encode()]
    for name in names:
        put(f"{spool}/{os.fsdecode(name)}")
    found = scan(spool, {}).changed
    assert sorted(os.fsencode(os.path.basename(path)) for path in found) == sorted(names)


def test_ten_thousand_wants_are_all_found(spool: str) -> None:
    wanted = set()
    for folder in range(10):
        os.mkdir(f"{spool}/{folder}")
        for number in range(1000):
            path = f"{spool}/{folder}/{number}.want"
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
            wanted.add(path)
    assert set(scan(spool, {}).changed) == wanted


# What a scanner remembers


class Times:
    """A scanner that has read everything long enough ago to trust what it remembers, and what it was told to watch."""

    def __init__(self, root: str) -> None:
        self.watched: list[str] = []
        self.now = 0.0
        self.scanner = Scanner(root, lambda folder, *_: self.watched.append(folder), lambda: self.now)

    def scan(self, known: Mapping[str, Seen], **more: Any) -> Found:
        return self.scanner.scan(known, **more)

    def settle(self, known: Mapping[str, Seen]) -> None:
        for _ in range(3):
            self.scan(known)
            self.now += SETTLED_S


def test_each_directory_is_watched_before_it_is_read(spool: str) -> None:
    put(f"{spool}/team/deep/a.want")
    seen: list[list[str]] = []

    def watch(folder: str, identity: tuple[int, int], fd: int) -> None:
        assert os.readlink(f"/proc/self/fd/{fd}") == folder
        assert identity == (os.stat(folder).st_dev, os.stat(folder).st_ino)
        seen.append([folder])
        put(f"{folder}/came-after-the-watch.want")

    found = Scanner(spool, watch).scan({})
    assert seen == [[spool], [f"{spool}/team"], [f"{spool}/team/deep"]]
    assert sum(path.endswith("came-after-the-watch.want") for path in found.changed) == 3


def test_a_directory_that_did_not_change_is_not_read_again(spool: str) -> None:
    kept, rewritten = put(f"{spool}/team/a.want"), put(f"{spool}/team/b.want")
    memory = known(kept, rewritten)
    times = Times(spool)
    times.settle(memory)
    put(rewritten, "other")  # in place: nothing in the directory changes, and nobody told
    assert times.scan(memory) == Found(unanswered=[])
    assert times.watched.count(f"{spool}/team") == 4, "though it is watched, and looked into for directories"


@pytest.mark.parametrize("how", ["everything", "crowded", "in turn"])
def test_a_want_rewritten_in_place_is_found_without_an_event(how: str, spool: str) -> None:
    paths = [put(f"{spool}/team/{number}.want") for number in range(10)]
    memory = known(*paths)
    times = Times(spool)
    times.settle(memory)
    put(paths[3], "other")
    if how == "everything":
        changed = times.scan(memory, everything=True).changed
    elif how == "crowded":
        changed = times.scan(memory, crowded={f"{spool}/team"}).changed
    else:
        changed = [path for _ in range(5) for path in times.scan(memory, names=2).changed]
    assert changed == [paths[3]]


def test_names_that_come_and_go_are_found_without_an_event(spool: str) -> None:
    gone, kept = put(f"{spool}/team/gone.want"), put(f"{spool}/team/kept.want")
    memory = known(gone, kept)
    times = Times(spool)
    times.settle(memory)
    os.unlink(gone)
    new = put(f"{spool}/team/new.want")
    found = times.scan(memory)
    assert (found.changed, found.removed) == ([new], [gone])


def test_a_time_that_was_set_back_hides_nothing(spool: str) -> None:
    folder = os.path.dirname(put(f"{spool}/team/a.want"))
    memory = known(f"{folder}/a.want")
    times = Times(spool)
    times.settle(memory)
    before = os.stat(folder)
    new = put(f"{folder}/b.want")
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))  # as rsync and cp -a do
    assert times.scan(memory).changed == [new]


def test_a_listing_as_young_as_the_change_before_it_is_not_trusted(spool: str) -> None:
    path = put(f"{spool}/a.want")
    times = Times(spool)
    first = times.scan({})
    assert first.changed == [path]
    assert times.scan({}).changed == [path], "one more name may have come in the same tick of the clock"
    times.now += SETTLED_S
    assert times.scan({}).changed == [path]
    assert times.scan({}).changed == [], "from now on the directory's times would tell"


def test_new_wants_that_no_agent_has_answered_come_first(spool: str) -> None:
    for number in range(20):
        put(f"{spool}/{number}.want")
        if number != 7:
            put(f"{spool}/{number}.progress")
    fresh = put(f"{spool}/team/fresh.want")
    found = scan(spool, {})
    assert sorted(found.changed[:2]) == sorted([f"{spool}/7.want", fresh])
    assert len(found.changed) == 21


def test_a_directory_whose_times_say_nothing_is_read_again_with_a_later_round(spool: str) -> None:
    path = put(f"{spool}/a.want")
    memory = known(path)
    times = Times(spool)
    times.settle(memory)
    times.scan(memory, names=1)
    times.now += AGAIN_S + 1
    assert times.scan({}, names=1).changed == [path]


def test_the_wants_of_a_directory_that_was_moved_are_gone_and_there_again(spool: str) -> None:
    old = put(f"{spool}/team/deep/a.want")
    memory = known(old)
    times = Times(spool)
    times.settle(memory)
    os.rename(f"{spool}/team", f"{spool}/squad")
    found = times.scan(memory)
    assert (found.changed, found.removed) == ([f"{spool}/squad/deep/a.want"], [old])


def test_a_directory_swapped_for_a_link_is_not_entered(spool: str) -> None:
    put(f"{spool}/team/a.want")
    put(f"{spool}/.other/orphan.progress")
    times = Times(spool)
    times.settle({})
    os.rename(f"{spool}/team", f"{spool}/.team")
    os.symlink(".other", f"{spool}/team")
    times.scan({}, everything=True)
    assert os.path.exists(f"{spool}/.other/orphan.progress")


def test_a_glance_sees_the_quiet_directories_beside_a_flood(spool: str) -> None:
    for folder, count in (("bad", 500), ("good", 2), (".hidden", 1)):
        for number in range(count):
            put(f"{spool}/{folder}/{number}.want")
    found = Times(spool).scanner.glance(known(f"{spool}/good/0.want"), most=10)
    assert f"{spool}/good/1.want" in found
    assert len(found) == 11


def test_a_directory_swapped_for_a_link_is_not_looked_into(spool: str) -> None:
    old = time.time() - 3600
    for name in ("victim/a.want", f"victim/{TEMP_PREFIX}0123456789abcdef.tmp", "spool/team/b.want"):
        put(f"{spool}/{name}")
    os.utime(f"{spool}/victim/{TEMP_PREFIX}0123456789abcdef.tmp", (old, old))
    scanner = Scanner(f"{spool}/spool", lambda *_: None)
    seen = known(*scanner.scan({}).changed)
    os.rename(f"{spool}/spool/team", f"{spool}/moved")
    os.symlink(f"{spool}/victim", f"{spool}/spool/team")
    assert scanner.glance(seen, 100) == []
    assert list(list_wants(f"{spool}/spool")) == []
    found = scanner.scan(seen, everything=True, names=100)
    assert found.changed == []
    assert found.removed == [f"{spool}/spool/team/b.want"]
    assert len(os.listdir(f"{spool}/victim")) == 2
