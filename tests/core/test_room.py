"""What goes from the store: never what is pinned, the least recently used first, and bytes are counted once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.core.retention import Census, Reason, Stored, due, make_room, relieve, unused

DAY = 86_400.0
NOW = 1_800_000_000.0
GB = 10**9


def census(*models: Stored, elsewhere: int | None = None, **sizes: int) -> Census:
    """Sizes by the name of an inode: `a1=5` is inode 1 of device 1."""
    numbered = {(1, int(name[1:])): size for name, size in sizes.items()}
    return Census({m.name: m for m in models}, numbered, frozenset({(1, elsewhere)} if elsewhere else ()))


def stored(name: str, age_days: float, *inodes: int, **more: object) -> Stored:
    return Stored(name, frozenset((1, inode) for inode in inodes), NOW - age_days * DAY, **more)  # type: ignore[arg-type]


OLD, MIDDLE, NEW = stored("old", 30, 1), stored("middle", 20, 2), stored("new", 10, 3)


def names(models: list[Stored] | None) -> list[str] | None:
    return None if models is None else [model.name for model in models]


def test_the_least_recently_used_goes_first_and_no_more_than_needed() -> None:
    three = census(NEW, OLD, MIDDLE, a1=10, a2=10, a3=10)
    assert names(make_room(three, 1, NOW)) == ["old"]
    assert names(make_room(three, 11, NOW)) == ["old", "middle"]
    assert names(make_room(three, 30, NOW)) == ["old", "middle", "new"]
    assert names(make_room(three, 0, NOW)) == []


def test_nothing_goes_where_all_would_not_be_enough() -> None:
    assert make_room(census(OLD, NEW, a1=10, a3=10), 21, NOW) is None
    assert names(relieve(census(OLD, NEW, a1=10, a3=10), 21, NOW)) == ["old", "new"]


def test_what_is_wanted_leased_or_open_stays() -> None:
    pinned = [
        stored("wanted", 99, 4, wanted_by=("/spool/a.want",)),
        stored("leased", 99, 5, leased=True),
        stored("open", 99, 6, in_use=True),
    ]
    four = census(*pinned, NEW, a3=10, a4=10, a5=10, a6=10)
    assert names(make_room(four, 10, NOW)) == ["new"]
    assert make_room(four, 11, NOW) is None
    assert names(unused(four, NOW, DAY)) == ["new"]
    assert names(four.holding(NOW, evict=True)) == ["leased", "open", "wanted"]
    assert len(four.holding(NOW, evict=False)) == 4


def test_a_shared_file_is_freed_with_the_last_model_that_has_it() -> None:
    two = census(stored("a", 2, 1, 2), stored("b", 1, 1, 3), a1=100, a2=1, a3=1)
    assert (two.frees(["a"]), two.frees(["b"]), two.frees(["a", "b"]), two.frees(["a", "a"])) == (1, 1, 102, 1)
    assert names(make_room(two, 50, NOW)) == ["a", "b"]


def test_a_model_whose_files_stay_in_use_by_another_is_not_removed_for_its_record() -> None:
    kept = stored("kept", 1, 1, 2, wanted_by=("/spool/a.want",))
    three = census(stored("twin", 50, 1, 3), kept, stored("big", 2, 4), a1=GB, a2=4096, a3=4096, a4=GB)
    assert names(make_room(three, GB // 2, NOW)) == ["big"]
    assert names(make_room(three, GB + 4096, NOW)) == ["twin", "big"]  # it takes just that


def test_a_file_with_a_name_elsewhere_frees_nothing() -> None:
    assert make_room(census(OLD, a1=10, elsewhere=1), 1, NOW) is None


def test_what_was_not_used_for_days_goes_even_when_there_is_room() -> None:
    three = census(NEW, OLD, MIDDLE, a1=10, a2=10, a3=10)
    assert due(three, NOW, 25 * DAY, 0, 0) == [(OLD, Reason.UNUSED)]
    assert due(three, NOW, 0, 0, 0) == []
    assert due(three, NOW, 25 * DAY, 10, 0) == [(OLD, Reason.UNUSED)]  # which makes the room
    assert due(three, NOW, 25 * DAY, 11, 21) == [
        (OLD, Reason.UNUSED),
        (MIDDLE, Reason.QUOTA),
        (NEW, Reason.DISK),
    ]


def test_a_clock_that_was_set_back_removes_nothing_and_a_use_in_the_future_is_one_now() -> None:
    future = stored("future", -1000, 9)
    assert unused(census(future, a9=1), NOW, DAY) == []
    assert names(census(NEW, future, OLD, a1=1, a3=1, a9=1).next_to_go(NOW)) == ["old", "new", "future"]


models = st.lists(
    st.builds(
        stored,
        st.sampled_from("abcdefgh"),
        st.floats(-50, 50),
        st.integers(1, 6),
        st.integers(1, 6),
        wanted_by=st.sampled_from([(), ("w.want",)]),
        leased=st.booleans(),
        in_use=st.booleans(),
    ),
    max_size=8,
    unique_by=lambda model: model.name,
)


@given(models, st.lists(st.integers(0, 1000), min_size=6, max_size=6), st.integers(0, 3000), st.sets(st.integers(1, 6)))
def test_whatever_there_is(found: list[Stored], sizes: list[int], missing: int, elsewhere: set[int]) -> None:
    counted = Census(
        {model.name: model for model in found},
        {(1, number): size for number, size in enumerate(sizes, 1)},
        frozenset((1, number) for number in elsewhere),
    )
    chosen = make_room(counted, missing, NOW)
    everything = counted.evictable(NOW)
    assert (chosen is None) == (everything < missing)
    for going in (chosen or [], relieve(counted, missing, NOW), unused(counted, NOW, DAY)):
        assert not any(model.pinned or model.in_use for model in going)
        assert len({model.name for model in going}) == len(going)
    if chosen:
        assert counted.frees(model.name for model in chosen) >= missing
        without_last = [model.name for model in chosen[:-1]]
        assert counted.frees(without_last) < missing
        # What was used longer ago and stays would have been of no use. All times in the future are the same: now.
        stays = [m for m in counted.next_to_go(NOW) if m not in chosen and m.last_used < min(chosen[-1].last_used, NOW)]
        for model in stays:
            with_it = counted.frees([*without_last, chosen[-1].name, model.name])
            gained = with_it - counted.frees([*without_last, chosen[-1].name])
            assert gained * 100 <= counted.size(model.name)
