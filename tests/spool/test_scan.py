"""The scan is the truth: it finds every want, misses none, and takes nothing for gone that it could not see."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest

from agent.disk import TEMP_PREFIX
from agent.spool.files import Stamp
from agent.spool.scan import DEPTH, is_want, scan

Drop = Callable[[], AbstractContextManager[None]]


@dataclass
class Seen:
    """What the agent remembers of a want."""

    stamp: Stamp | None


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
    assert all(is_want(spool, path) for path in found)
    assert not is_want(spool, f"{spool}/a/b/c/d/e/x.want")


def test_dot_folders_and_linked_folders_are_not_entered(spool: str) -> None:
    put(f"{spool}/.hidden/a.want")
    put(f"{spool}/real/b.want")
    os.symlink("real", f"{spool}/link")
    os.symlink("..", f"{spool}/real/up")
    assert below(spool, scan(spool, {}).changed) == ["real/b.want"]
    assert not is_want(spool, f"{spool}/.hidden/a.want")


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


def test_looking_only_removes_nothing(spool: str) -> None:
    put(f"{spool}/orphan.progress")
    scan(spool, {}, tidy=False)
    assert os.listdir(spool) == ["orphan.progress"]


def test_a_want_that_lost_its_answer_is_told_unless_it_cannot_have_one(spool: str) -> None:
    lost, silent, answered, new = (put(f"{spool}/{name}.want") for name in ("lost", "silent", "answered", "new"))
    put(f"{spool}/answered.progress")
    found = scan(spool, known(lost, silent, answered), {silent})
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


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/spool/a.want", True),
        ("/spool/a/b/c/d/x.want", True),
        ("/spool/a/b/c/d/e/x.want", False),
        ("/spool/.a.want", False),
        ("/spool/.a/x.want", False),
        ("/spool/a/.b/x.want", False),
        ("/spool/a.progress", False),
        ("/spooled/a.want", False),
        ("/a.want", False),
        ("", False),
    ],
)
def test_an_event_and_the_scan_agree_on_what_a_want_is(path: str, answer: bool) -> None:
    assert is_want("/spool", path) is answer
