"""A watch that does not report what a scan finds is deaf; one that reports late is not."""

from __future__ import annotations

from agent.requests.hearing import Hearing
from agent.spool.watcher import Hints

A, B = "/spool/a.want", "/spool/b.want"


def test_what_was_found_and_not_heard_of_until_the_next_check_is_suspect_once() -> None:
    hearing = Hearing()
    hearing.found([A])
    assert hearing.suspects() == [A]
    assert hearing.suspects() == []


def test_what_was_heard_of_before_or_after_is_not() -> None:
    hearing = Hearing()
    hearing.heard(Hints(paths={A: True}))
    assert hearing.suspects() == []
    hearing.found([A, B])
    hearing.heard(Hints(paths={B: True}))
    assert hearing.suspects() == []


def test_what_was_heard_of_long_ago_does_not_count() -> None:
    hearing = Hearing()
    hearing.heard(Hints(paths={A: True}))
    hearing.suspects()
    hearing.suspects()
    hearing.found([A])
    assert hearing.suspects() == [A]


def test_a_hint_about_directories_clears_all() -> None:
    for hints in (Hints(scan=True), Hints(folders={"/spool"}), Hints(everything=True)):
        hearing = Hearing()
        hearing.found([A])
        hearing.heard(hints)
        assert hearing.suspects() == []
