"""The first source that can answer does; what the Hub knows for certain is final; nothing is forgotten on the way."""

from __future__ import annotations

import asyncio

import pytest

from agent.core.access import PlainHttp
from agent.core.names import RepoId, SafeName
from agent.core.remote import Listing, Location, Query
from agent.core.retry import DOWN_MAX_S, DOWN_S, LOCATION_STRIKES, SOURCE_FAULTS, UNUSABLE_FILE_S, WRONG_FILE_S
from agent.errors import Code, WantdError
from agent.net.address import AddressRule
from agent.net.faults import NoResponse
from agent.sources.chain import REMEMBERED, Chain
from tests.sources.asking import ask

REPO, NAME = RepoId("org/name"), SafeName("m.gguf")
QUERY = ask(REPO)
FAILED = WantdError(Code.STALLED, "no byte for 30 s", "wait")


def fault(code: Code, retry_after_s: float | None = None) -> WantdError:
    return WantdError(code, f"it is {code}", f"mend {code}", retry_after_s=retry_after_s)


def unreachable(code: Code = Code.HUB_UNREACHABLE) -> WantdError:
    return NoResponse(code, f"it is {code}", f"mend {code}")


async def settled() -> None:
    """Everything that can go on has gone on."""
    for _ in range(20):
        await asyncio.sleep(0)


class Fake:
    """A source that answers, or raises what it is told to; nothing comes while its `gate` is closed."""

    def __init__(self, name: str, error: WantdError | None = None) -> None:
        self.name = name
        self.error = error
        self.asked: list[WantdError | None] = []
        self.gate: asyncio.Event | None = None
        self.only_first = False

    async def listing(self, query: Query) -> Listing:
        await self._answer(None)
        return Listing(self.name, query.repo, "c" * 40, ())

    async def locate(self, query: Query, name: SafeName, failed: WantdError | None = None) -> Location:
        await self._answer(failed)
        return Location(self.name, PlainHttp(f"https://{self.name}.example/", AddressRule(False)))

    async def _answer(self, failed: WantdError | None) -> None:
        self.asked.append(failed)
        number = len(self.asked)
        if self.gate:
            await self.gate.wait()
        if self.only_first and number > 1:
            await asyncio.Event().wait()
        if self.error:
            raise self.error


class Clock:
    """A clock that stands until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_the_first_source_answers_alone() -> None:
    hub, proxy = Fake("hub"), Fake("proxy")
    chain = Chain([hub, proxy])
    assert (await chain.listing(QUERY)).source == "hub"
    assert (await chain.locate(QUERY, NAME)).source == "hub"
    assert not proxy.asked


@pytest.mark.parametrize("code", [Code.HUB_UNREACHABLE, Code.RATE_LIMITED, Code.STALLED, Code.HUB_PROTOCOL])
async def test_a_passing_fault_falls_through(code: Code) -> None:
    chain = Chain([Fake("hub", fault(code)), Fake("proxy")])
    assert (await chain.listing(QUERY)).source == "proxy"
    assert (await chain.locate(QUERY, NAME)).source == "proxy"


async def test_a_hub_that_is_set_offline_falls_through() -> None:
    offline = WantdError(Code.HUB_UNREACHABLE, "offline", "go online", retryable=False)
    assert (await Chain([Fake("hub", offline), Fake("proxy")]).listing(QUERY)).source == "proxy"
    with pytest.raises(WantdError, match="offline") as caught:
        await Chain([Fake("hub", offline)]).listing(QUERY)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    "code", [Code.MODEL_NOT_FOUND, Code.REVISION_NOT_FOUND, Code.GATED, Code.UNAUTHORIZED, Code.TOKEN_INVALID]
)
async def test_a_definite_answer_of_the_hub_is_final(code: Code) -> None:
    proxy = Fake("proxy")
    chain = Chain([Fake("hub", fault(code)), proxy])
    for asking in (chain.listing(QUERY), chain.locate(QUERY, NAME)):
        with pytest.raises(WantdError) as caught:
            await asking
        assert caught.value.code is code
    assert not proxy.asked


async def test_when_all_fail_the_error_says_what_each_answered() -> None:
    hub, proxy = Fake("hub", fault(Code.HUB_UNREACHABLE, 60)), Fake("proxy", fault(Code.RATE_LIMITED, 20))
    with pytest.raises(WantdError) as caught:
        await Chain([hub, proxy, Fake("last", fault(Code.MODEL_NOT_FOUND))]).listing(QUERY)
    error = caught.value
    assert (error.code, error.retryable, error.retry_after_s) == (Code.HUB_UNREACHABLE, True, 20)
    for said in ("hub: it is hub_unreachable", "proxy: it is rate_limited", "last: it is model_not_found"):
        assert said in error.message


async def test_that_the_proxy_does_not_have_it_settles_nothing() -> None:
    with pytest.raises(WantdError) as caught:
        await Chain([Fake("hub", fault(Code.HUB_PROTOCOL)), Fake("proxy", fault(Code.PROXY_UNREACHABLE))]).listing(
            QUERY
        )
    assert (caught.value.code, caught.value.retryable) == (Code.PROXY_UNREACHABLE, True)


async def test_a_source_whose_locations_keep_failing_is_left_for_the_next_file_by_file() -> None:
    hub, proxy = Fake("hub"), Fake("proxy")
    chain = Chain([hub, proxy])
    used = [(await chain.locate(QUERY, NAME)).source]
    used += [(await chain.locate(QUERY, NAME, FAILED)).source for _ in range(2 * LOCATION_STRIKES)]
    assert used == ["hub"] * LOCATION_STRIKES + ["proxy"] * LOCATION_STRIKES + ["hub"]
    assert (await chain.locate(QUERY, SafeName("other"), FAILED)).source == "hub"
    assert proxy.asked[0] is None  # the failure was another's


async def test_a_fresh_start_begins_with_the_first_source() -> None:
    chain = Chain([Fake("hub"), Fake("proxy")])
    for _ in range(LOCATION_STRIKES):
        await chain.locate(QUERY, NAME, FAILED)
    assert (await chain.locate(QUERY, NAME)).source == "hub"


async def test_a_source_that_was_unreachable_is_left_alone_and_then_asked_by_one_question() -> None:
    clock, hub, proxy = Clock(), Fake("hub", unreachable()), Fake("proxy")
    chain = Chain([hub, proxy], clock)
    for n in range(20):
        await chain.locate(QUERY, SafeName(f"{n}"))
    assert len(hub.asked) == 1
    clock.now += DOWN_S
    hub.error = None
    hub.gate = asyncio.Event()
    used = [(await chain.locate(QUERY, SafeName(f"{n}"))).source for n in range(20)]
    assert used == ["proxy"] * 20  # none waits for the probe
    await settled()
    assert len(hub.asked) == 2
    hub.gate.set()
    await settled()
    assert (await chain.locate(QUERY, NAME)).source == "hub"
    await chain.close()


async def test_each_probe_that_fails_leaves_the_source_alone_for_longer() -> None:
    clock, hub = Clock(), Fake("hub", unreachable())
    chain = Chain([hub, Fake("proxy")], clock)
    pauses = [DOWN_S, 2 * DOWN_S, 4 * DOWN_S, 8 * DOWN_S, DOWN_MAX_S, DOWN_MAX_S]
    for asked, pause in enumerate(pauses, start=1):
        for moment in (0.0, pause - 0.1):
            clock.now += moment
            await chain.listing(QUERY)
            await settled()
            assert len(hub.asked) == asked
        clock.now += 0.1
    await chain.close()


async def test_many_who_wait_for_a_source_are_let_go_when_one_finds_it_unreachable() -> None:
    hub, proxy = Fake("hub"), Fake("proxy")
    hub.gate = asyncio.Event()
    chain = Chain([hub, proxy])
    asking = [asyncio.create_task(chain.listing(ask("org/name", f"r{n}"))) for n in range(1000)]
    await settled()
    assert len(hub.asked) == 1000
    hub.error, hub.only_first = unreachable(), True
    hub.gate.set()  # the first to ask is answered, with a timeout; to all others nothing ever comes
    listings = await asyncio.gather(*asking)
    assert {listing.source for listing in listings} == {"proxy"}
    assert all(listing.because and "hub: it is hub_unreachable" in listing.because.message for listing in listings)
    await chain.close()


async def test_one_answer_5xx_is_about_one_model_and_three_in_a_row_about_the_source() -> None:
    hub, proxy = Fake("hub", fault(Code.HUB_UNREACHABLE)), Fake("proxy")
    chain = Chain([hub, proxy], Clock())
    for _ in range(SOURCE_FAULTS - 1):
        await chain.listing(QUERY)
    hub.error = None
    assert (await chain.listing(QUERY)).source == "hub"
    hub.error = fault(Code.HUB_UNREACHABLE)
    for _ in range(10):
        assert (await chain.listing(QUERY)).source == "proxy"
    assert len(hub.asked) == SOURCE_FAULTS - 1 + 1 + SOURCE_FAULTS


@pytest.mark.parametrize("code", [Code.MODEL_NOT_FOUND, Code.GATED])
async def test_a_source_that_says_no_is_there(code: Code) -> None:
    clock, hub = Clock(), Fake("hub", unreachable())
    chain = Chain([hub, Fake("proxy")], clock)
    await chain.listing(QUERY)
    clock.now += DOWN_S
    hub.error = fault(code)
    await chain.listing(QUERY)  # its probe finds out
    await settled()
    with pytest.raises(WantdError) as caught:
        await chain.listing(QUERY)
    assert caught.value.code is code


async def test_with_every_source_down_each_question_asks_them_all() -> None:
    hub, proxy = Fake("hub", unreachable()), Fake("proxy", unreachable(Code.PROXY_UNREACHABLE))
    chain = Chain([hub, proxy], Clock())
    for _ in range(3):
        with pytest.raises(WantdError) as caught:
            await chain.listing(QUERY)
        assert caught.value.retryable
        assert "hub: it is hub_unreachable; proxy: it is proxy_unreachable" in caught.value.message
    proxy.error = None
    assert (await chain.listing(QUERY)).source == "proxy"
    proxy.error, hub.error = unreachable(Code.PROXY_UNREACHABLE), None
    assert (await chain.listing(QUERY)).source == "hub"


async def test_an_error_that_many_are_told_is_about_the_model_that_each_asked_for() -> None:
    chain = Chain([Fake("hub", unreachable()), Fake("proxy", fault(Code.PROXY_UNREACHABLE))])
    for repo in ("org/first", "org/second"):
        with pytest.raises(WantdError) as caught:
            await chain.listing(ask(repo))
        assert caught.value.model == repo


@pytest.mark.parametrize(
    ("code", "seconds"), [(Code.CHECKSUM_MISMATCH, WRONG_FILE_S), (Code.HUB_PROTOCOL, UNUSABLE_FILE_S)]
)
async def test_a_fallback_that_has_another_version_of_a_file_is_not_asked_for_it_again_and_again(
    code: Code, seconds: float
) -> None:
    clock, hub, proxy = Clock(), Fake("hub", unreachable()), Fake("proxy")
    chain = Chain([hub, proxy], clock)
    assert (await chain.locate(QUERY, NAME)).source == "proxy"
    for failed in (fault(code), None, None):
        with pytest.raises(WantdError) as caught:
            await chain.locate(QUERY, NAME, failed)
        assert (caught.value.code, caught.value.retryable) == (Code.HUB_UNREACHABLE, True)
    assert (await chain.locate(QUERY, SafeName("other"))).source == "proxy"
    clock.now += seconds
    assert (await chain.locate(QUERY, NAME)).source == "proxy"
    await chain.close()


async def test_bytes_of_the_hub_that_are_wrong_are_asked_for_elsewhere_and_then_there_again() -> None:
    hub, proxy = Fake("hub"), Fake("proxy")
    chain = Chain([hub, proxy])
    await chain.locate(QUERY, NAME)
    assert (await chain.locate(QUERY, NAME, fault(Code.CHECKSUM_MISMATCH))).source == "proxy"
    proxy.error = fault(Code.PROXY_UNREACHABLE)
    await chain.locate(QUERY, NAME)
    assert (await chain.locate(QUERY, NAME, fault(Code.CHECKSUM_MISMATCH))).source == "hub"


async def test_a_listing_says_why_the_sources_before_were_passed_over() -> None:
    hub = Fake("hub")
    chain = Chain([hub, Fake("proxy")], Clock())
    assert (await chain.listing(QUERY)).because is None
    hub.error = unreachable()
    for _ in range(2):  # the second time the Hub is not asked
        because = (await chain.listing(QUERY)).because
        assert because is not None
        assert (because.code, because.message) == (Code.HUB_UNREACHABLE, "hub: it is hub_unreachable")


@pytest.mark.parametrize("code", [Code.HUB_UNREACHABLE, Code.STALLED, Code.HUB_PROTOCOL])
async def test_a_stand_in_lists_what_the_first_source_cannot(code: Code) -> None:
    chain = Chain([Fake("hub", fault(code))], stand_in=Fake("cache"))
    assert (await chain.listing(QUERY)).source == "cache"
    assert (await chain.locate(QUERY, NAME)).source == "cache"


async def test_a_hub_that_only_asks_for_patience_is_waited_for_and_a_branch_of_old_is_not_taken() -> None:
    cache = Fake("cache")
    chain = Chain([Fake("hub", fault(Code.RATE_LIMITED, 30))], stand_in=cache)
    with pytest.raises(WantdError) as caught:
        await chain.listing(QUERY)
    assert (caught.value.code, caught.value.retry_after_s) == (Code.RATE_LIMITED, 30)
    assert not cache.asked
    assert (await chain.locate(QUERY, NAME)).source == "cache"  # these bytes are proved by their hash


async def test_a_stand_in_is_asked_while_the_first_source_is_left_alone_and_no_longer() -> None:
    hub, cache, clock = Fake("hub", unreachable()), Fake("cache"), Clock()
    chain = Chain([hub], clock, stand_in=cache)
    for _ in range(3):
        assert (await chain.listing(QUERY)).source == "cache"
    assert len(hub.asked) == 1
    hub.error = None
    clock.now += DOWN_S
    await chain.listing(QUERY)  # probes in the background
    await settled()
    assert (await chain.listing(QUERY)).source == "hub"
    await chain.close()


async def test_any_number_of_failing_files_takes_bounded_memory() -> None:
    chain = Chain([Fake("hub"), Fake("proxy")])
    for n in range(REMEMBERED + 10):
        await chain.locate(QUERY, SafeName(f"{n}"), FAILED)
    assert len(chain._strikes) == REMEMBERED


def test_a_chain_of_nothing_is_a_mistake() -> None:
    with pytest.raises(ValueError):
        Chain([])
