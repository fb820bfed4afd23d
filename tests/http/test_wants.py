"""The list of wants: counts, filters, pages."""

from __future__ import annotations

import pytest

from agent.core.states import State
from agent.core.waits import ForDisk
from agent.core.want import Want, WantedModel
from agent.http.wants import EVERY, Filter, Wants
from agent.state.ticket import Ticket
from tests.fakes import START, error


def make(path: str, model: str = "qwen3", labels: dict[str, str] | None = None) -> Ticket:
    ticket = Ticket(f"/spool/{path}", START)
    ticket.want = Want((WantedModel(model),), labels=labels or {})
    return ticket


@pytest.fixture
def wants() -> Wants:
    wants = Wants("/spool")
    for path, model, labels in (
        ("b.want", "Qwen/Qwen3-0.6B", {"team": "search"}),
        ("a.want", "llama", {"team": "search", "tier": "1"}),
        ("team/c.want", "qwen3", {}),
    ):
        wants.put(make(path, model, labels))
    return wants


async def paths(wants: Wants, wanted: Filter = EVERY, after: str = "", limit: int = 10) -> list[str]:
    return [wants.shown(ticket.path) for ticket in (await wants.page(wanted, after, limit)).tickets]


async def test_they_are_listed_by_path_a_page_at_a_time(wants: Wants) -> None:
    page = await wants.page(EVERY, "", 2)
    assert [ticket.path for ticket in page.tickets] == ["/spool/a.want", "/spool/b.want"]
    assert (page.total, page.next) == (3, "b.want")
    page = await wants.page(EVERY, "b.want", 2)
    assert [ticket.path for ticket in page.tickets] == ["/spool/team/c.want"]
    assert (page.total, page.next) == (3, None)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(states=frozenset({"queued"})), ["a.want", "b.want", "team/c.want"]),
        (Filter(states=frozenset({"ready"})), []),
        (Filter(labels=frozenset({("team", "search")})), ["a.want", "b.want"]),
        (Filter(labels=frozenset({("team", "search"), ("tier", "1")})), ["a.want"]),
        (Filter(text="qwen"), ["b.want", "team/c.want"]),
        (Filter(text="team/"), ["team/c.want"]),
    ],
)
async def test_a_filter(wants: Wants, wanted: Filter, found: list[str]) -> None:
    assert await paths(wants, wanted) == found
    page = await wants.page(wanted, "", 1)
    assert page.total == len(found)
    assert page.next == (found[0] if len(found) > 1 else None)
    assert await paths(wants, wanted, page.next or "zzz") == found[1:]


async def test_counts_follow_each_want() -> None:
    wants = Wants("/spool")
    ticket = make("a.want", labels={"team": "x"})
    wants.put(ticket)
    assert (wants.counts[State.QUEUED], wants.labels()) == (1, {"team": ["x"]})
    ticket.waiting = ForDisk(2, 1)
    wants.put(ticket)
    assert (wants.counts[State.QUEUED], wants.counts[State.WAITING], wants.waiting["disk"]) == (0, 1, 1)
    ticket.waiting, ticket.error = None, error()
    wants.put(ticket)
    assert (wants.counts[State.FAILED], wants.waiting["disk"]) == (1, 0)
    assert wants.drop(ticket)
    assert not wants.drop(ticket)
    assert (wants.counts[State.FAILED], wants.labels(), len(wants)) == (0, {}, 0)


async def test_a_want_in_the_place_of_another_stays_when_the_other_is_said_to_be_gone() -> None:
    wants = Wants("/spool")
    old, new = make("a.want"), make("a.want")
    wants.put(old)
    wants.put(new)
    assert not wants.drop(old)
    assert wants.find("a.want") is new
    assert await paths(wants) == ["a.want"]


async def test_a_name_that_cannot_be_printed_is_shown_with_escapes_and_found_by_them() -> None:
    wants = Wants("/spool")
    ticket = make("\u202etxt\udcff.want")
    wants.put(ticket)
    assert await paths(wants) == ["\\u202etxt\\udcff.want"]
    assert wants.find("\\u202etxt\\udcff.want") is ticket
    assert await paths(wants, after="\\u202etxt\\udcff.want") == []
    wants.drop(ticket)
    assert wants.find("\\u202etxt\\udcff.want") is None
