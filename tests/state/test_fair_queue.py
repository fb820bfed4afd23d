"""The fair queue: directories take turns, and it agrees with a model that is easy to understand."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from agent.state.fair_queue import FairQueue


def queue(*, newest_too: bool = False) -> FairQueue[str, int]:
    return FairQueue(lambda path: path, newest_too=True) if newest_too else FairQueue(lambda path: path)


def names(taken: list[tuple[str, int]]) -> list[str]:
    return [path for path, _ in taken]


def test_directories_take_turns_however_full_one_of_them_is() -> None:
    waiting = queue()
    for number in range(1000):
        waiting.put(f"/flood/{number}", number)
    waiting.put("/one/a", 0)
    waiting.put("/two/b", 0)
    assert names(waiting.take(4)) == ["/flood/0", "/one/a", "/two/b", "/flood/1"]
    assert len(waiting) == 998


def test_a_directory_that_was_served_goes_behind_the_others() -> None:
    waiting = queue()
    for path in ("/a/1", "/b/1", "/c/1", "/a/2", "/b/2"):
        waiting.put(path, 0)
    assert names(waiting.take(1)) == ["/a/1"]
    waiting.put("/d/1", 0)
    assert names(waiting.take(2)) == ["/b/1", "/c/1"]
    assert names(waiting.take(9)) == ["/a/2", "/d/1", "/b/2"]
    assert names(waiting.take(9)) == []
    assert len(waiting) == 0


def test_no_more_is_given_than_asked_for_in_the_middle_of_a_round() -> None:
    waiting = queue()
    for path in ("/a/1", "/a/2", "/b/1", "/b/2", "/c/1", "/c/2"):
        waiting.put(path, 0)
    assert names(waiting.take(4)) == ["/a/1", "/b/1", "/c/1", "/a/2"]
    assert len(waiting) == 2


def test_neither_end_of_a_flood_waits_for_the_other() -> None:
    waiting = queue(newest_too=True)
    for number in range(6):
        waiting.put(f"/flood/{number}", number)
    assert names(waiting.take(6)) == [f"/flood/{number}" for number in (0, 5, 1, 4, 2, 3)]


def test_one_item_waits_once_and_keeps_its_place_with_its_newest_note() -> None:
    waiting = queue()
    for path in ("/a/1", "/a/2", "/a/1"):
        waiting.put(path, len(waiting))
    assert len(waiting) == 2
    assert "/a/1" in waiting
    assert "/a/3" not in waiting
    assert "/b/1" not in waiting
    assert waiting.get("/a/1") == 2
    assert waiting.get("/a/3") is None
    assert waiting.get("/b/1") is None
    assert waiting.take(9) == [("/a/1", 2), ("/a/2", 1)]


def test_what_is_taken_out_is_not_given() -> None:
    waiting = queue()
    for path in ("/a/1", "/a/2", "/b/1"):
        waiting.put(path, 0)
    for path in ("/a/1", "/b/1", "/b/1", "/a/9", "/c/1"):
        waiting.discard(path)
    assert len(waiting) == 1
    assert not queue()
    assert names(waiting.take(9)) == ["/a/2"]


class Naive:
    """The same, slowly: the directories in the order of their turns, each with its items in the order they came."""

    def __init__(self, newest_too: bool) -> None:
        self.folders: list[tuple[str, list[tuple[str, int]]]] = []
        self.newest_too = newest_too
        self.newest = False

    def items(self, path: str) -> list[tuple[str, int]]:
        return next((items for folder, items in self.folders if folder == os.path.dirname(path)), [])

    def put(self, path: str, note: int) -> None:
        items = self.items(path)
        for at, (other, _) in enumerate(items):
            if other == path:
                items[at] = (path, note)
                return
        if items:
            items.append((path, note))
        else:
            self.folders.append((os.path.dirname(path), [(path, note)]))

    def discard(self, path: str) -> None:
        items = self.items(path)
        items[:] = [item for item in items if item[0] != path]
        self.folders = [(folder, items) for folder, items in self.folders if items]

    def take(self, count: int) -> list[tuple[str, int]]:
        taken: list[tuple[str, int]] = []
        while self.folders and len(taken) < count:
            for _ in range(min(len(self.folders), count - len(taken))):
                folder, items = self.folders.pop(0)
                taken.append(items.pop(-1 if self.newest else 0))
                if items:
                    self.folders.append((folder, items))
            self.newest = self.newest_too and not self.newest
        return taken


PATHS = st.builds(lambda folder, name: f"/{folder}/{name}", st.sampled_from("abc"), st.sampled_from("0123456789"))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), PATHS, st.integers(0, 5)),
        st.tuples(st.just("discard"), PATHS, st.just(0)),
        st.tuples(st.just("take"), st.just(""), st.integers(0, 7)),
    ),
    max_size=60,
)


@given(STEPS, st.booleans())
def test_it_agrees_with_the_naive_model(steps: list[tuple[str, str, int]], newest_too: bool) -> None:
    waiting, naive = queue(newest_too=newest_too), Naive(newest_too)
    for what, path, number in steps:
        if what == "put":
            waiting.put(path, number)
            naive.put(path, number)
        elif what == "discard":
            waiting.discard(path)
            naive.discard(path)
        else:
            assert waiting.take(number) == naive.take(number)
        there = [item for _, items in naive.folders for item in items]
        assert len(waiting) == len(there)
        for other, note in there:
            assert other in waiting
            assert waiting.get(other) == note


def test_what_is_put_back_is_first_in_turn_again_whatever_else_waits() -> None:
    queue: FairQueue[str, None] = FairQueue(lambda path: path)
    for number in range(10):
        queue.put(f"/flood/{number}", None)
    queue.put("/other/x", None)
    taken = queue.take(4)
    assert [path for path, _ in taken] == ["/flood/0", "/other/x", "/flood/1", "/flood/2"]
    queue.put_back(taken[1:])
    assert len(queue) == 10
    assert [path for path, _ in queue.take(3)] == ["/other/x", "/flood/1", "/flood/2"]
