"""The numbered log: changes are kept in order, byte counts give way, and what is not kept any more is said."""

from __future__ import annotations

import json
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from agent.http.log import EventLog
from tests.fakes import START

MUCH = 1 << 30


def values(log: EventLog, since: int) -> list[object] | None:
    found = log.read(since, MUCH)
    return None if found is None else [json.loads(event.body)["data"] for event in found[0]]


def test_a_reader_gets_what_came_since() -> None:
    log = EventLog(START)
    begin = log.last
    log.change("want", "a", START, "k")
    middle = log.last
    log.change("want", "b", START, "k")
    assert values(log, begin) == ["a", "b"]
    assert values(log, middle) == ["b"]
    assert values(log, log.last) == []
    found = log.read(begin, MUCH)
    assert found is not None
    assert [event.id for event in found[0]] == [begin + 1, begin + 2]
    assert json.loads(found[0][0].body) == {
        "id": begin + 1,
        "time": "2026-11-24T12:00:00.000Z",
        "type": "want",
        "data": "a",
    }


def test_a_byte_count_gives_way_to_whatever_comes_next_of_its_want() -> None:
    log = EventLog(START)
    begin = log.last
    for number in range(3):
        log.count("want", number, START, "k")
        log.count("want", f"other {number}", START, "o")
    assert values(log, begin) == [2, "other 2"]
    log.change("want", "ready", START, "k")
    assert values(log, begin) == ["other 2", "ready"]


def test_an_id_of_another_run_is_told_from_those_of_this_one() -> None:
    old = EventLog(START)
    old.change("want", "a", START)
    new = EventLog(START + timedelta(milliseconds=1))
    assert values(new, old.last) is None
    assert values(new, new.last + 1) is None
    assert new.reset(START).id == new.last


def test_what_is_dropped_is_known_to_be() -> None:
    log = EventLog(START, events=10)
    begin = log.last
    for number in range(11):
        log.change("want", number, START)
    assert values(log, begin) is None
    assert values(log, log.last - 9) == list(range(2, 11))
    log = EventLog(START, most_bytes=10_000)
    for number in range(100):
        log.change("want", "x" * 900, START)
        kept = log.read(log.last - min(number, 7), MUCH)
        assert kept is not None
    assert values(log, begin) is None


def test_what_is_skipped_is_not_passed_over_in_silence() -> None:
    log = EventLog(START)
    log.change("want", "a", START)
    before = log.last
    log.skip()
    assert values(log, before) is None
    assert values(log, log.last) == []
    log.change("want", "b", START)
    assert values(log, log.last - 1) == ["b"]


def test_a_batch_ends_when_it_is_large_enough() -> None:
    log = EventLog(START)
    cursor = log.last
    for number in range(10):
        log.change("want", number, START)
    got: list[object] = []
    while found := log.read(cursor, 1):
        events, cursor = found
        if not events:
            break
        assert len(events) == 1
        got += [json.loads(event.body)["data"] for event in events]
    assert got == list(range(10))


STEPS = st.lists(st.tuples(st.sampled_from(["change", "count", "read"]), st.integers(0, 3)), max_size=60)


@given(STEPS, st.integers(4, 30))
def test_a_reader_misses_no_change_unless_it_is_told(steps: list[tuple[str, int]], kept: int) -> None:
    log = EventLog(START, events=kept)
    cursor, missed, written, got = log.last, False, [], []
    latest: dict[int, object] = {}
    for number, (step, key) in enumerate([*steps, ("read", 0)]):
        if step == "read":
            found = log.read(cursor, MUCH)
            if found is None:
                missed, cursor = True, log.last
                got, written = [], []
            else:
                events, cursor = found
                seen = [json.loads(event.body)["data"] for event in events]
                got += [value for value in seen if value[0] == "change"]
                if seen and not missed:
                    assert seen[-1] == latest[seen[-1][1]]
        elif step == "change":
            latest[key] = ["change", key, number]
            written.append(["change", key, number])
            log.change("want", latest[key], START, key)
        else:
            latest[key] = ["count", key, number]
            log.count("want", latest[key], START, key)
    assert got == written
