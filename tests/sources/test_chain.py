"""The first source that can answer does; what the Hub knows for certain is final; nothing is forgotten on the way."""

from __future__ import annotations

import pytest

from agent.core.names import RepoId, SafeName
from agent.core.remote import Listing, Location
from agent.errors import Code, WantdError
from agent.sources.chain import DOWN_S, REMEMBERED, STRIKES, Chain

REPO, NAME = RepoId("org/name"), SafeName("m.gguf")
FAILED = WantdError(Code.STALLED, "no byte for 30 s", "wait")


def fault(code: Code, retry_after_s: float | None = None) -> WantdError:
    return WantdError(code, f"it is {code}", f"mend {code}", retry_after_s=retry_after_s)


class Fake:
    """A source that answers, or raises what it is told to."""

    def __init__(self, name: str, error: WantdError | None = None) -> None:
        self.name = name
        self.error = error
        self.asked: list[WantdError | None] = []

    async def listing(self, repo: RepoId, revision: str) -> Listing:
        self._answer(None)
        return Listing(self.name, repo, "c" * 40, ())

    async def locate(self, repo: RepoId, commit: str, name: SafeName, failed: WantdError | None = None) -> Location:
        self._answer(failed)
        return Location(self.name, f"https://{self.name}.example/")

    def _answer(self, failed: WantdError | None) -> None:
        self.asked.append(failed)
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
    assert (await chain.listing(REPO, "main")).source == "hub"
    assert (await chain.locate(REPO, "c", NAME)).source == "hub"
    assert not proxy.asked


@pytest.mark.parametrize("code", [Code.HUB_UNREACHABLE, Code.RATE_LIMITED, Code.STALLED, Code.HUB_PROTOCOL])
async def test_a_passing_fault_falls_through(code: Code) -> None:
    chain = Chain([Fake("hub", fault(code)), Fake("proxy")])
    assert (await chain.listing(REPO, "main")).source == "proxy"
    assert (await chain.locate(REPO, "c", NAME)).source == "proxy"


async def test_a_hub_that_is_set_offline_falls_through() -> None:
    offline = WantdError(Code.HUB_UNREACHABLE, "offline", "go online", retryable=False)
    assert (await Chain([Fake("hub", offline), Fake("proxy")]).listing(REPO, "main")).source == "proxy"
    with pytest.raises(WantdError, match="offline") as caught:
        await Chain([Fake("hub", offline)]).listing(REPO, "main")
    assert not caught.value.retryable


@pytest.mark.parametrize(
    "code", [Code.MODEL_NOT_FOUND, Code.REVISION_NOT_FOUND, Code.GATED, Code.UNAUTHORIZED, Code.TOKEN_INVALID]
)
async def test_a_definite_answer_of_the_hub_is_final(code: Code) -> None:
    proxy = Fake("proxy")
    chain = Chain([Fake("hub", fault(code)), proxy])
    for asking in (chain.listing(REPO, "main"), chain.locate(REPO, "c", NAME)):
        with pytest.raises(WantdError) as caught:
            await asking
        assert caught.value.code is code
    assert not proxy.asked


async def test_when_all_fail_the_error_says_what_each_answered() -> None:
    hub, proxy = Fake("hub", fault(Code.HUB_UNREACHABLE, 60)), Fake("proxy", fault(Code.RATE_LIMITED, 20))
    with pytest.raises(WantdError) as caught:
        await Chain([hub, proxy, Fake("last", fault(Code.MODEL_NOT_FOUND))]).listing(REPO, "main")
    error = caught.value
    assert (error.code, error.retryable, error.retry_after_s) == (Code.HUB_UNREACHABLE, True, 20)
    for said in ("hub: it is hub_unreachable", "proxy: it is rate_limited", "last: it is model_not_found"):
        assert said in error.message


async def test_that_the_proxy_does_not_have_it_settles_nothing() -> None:
    with pytest.raises(WantdError) as caught:
        await Chain([Fake("hub", fault(Code.HUB_PROTOCOL)), Fake("proxy", fault(Code.PROXY_UNREACHABLE))]).listing(
            REPO, "main"
        )
    assert (caught.value.code, caught.value.retryable) == (Code.PROXY_UNREACHABLE, True)


async def test_a_source_whose_locations_keep_failing_is_left_for_the_next_file_by_file() -> None:
    hub, proxy = Fake("hub"), Fake("proxy")
    chain = Chain([hub, proxy])
    used = [(await chain.locate(REPO, "c", NAME)).source]
    used += [(await chain.locate(REPO, "c", NAME, FAILED)).source for _ in range(2 * STRIKES)]
    assert used == ["hub"] * STRIKES + ["proxy"] * STRIKES + ["hub"]
    assert (await chain.locate(REPO, "c", SafeName("other"), FAILED)).source == "hub"
    assert proxy.asked[0] is None  # the failure was another's


async def test_a_fresh_start_begins_with_the_first_source() -> None:
    chain = Chain([Fake("hub"), Fake("proxy")])
    for _ in range(STRIKES):
        await chain.locate(REPO, "c", NAME, FAILED)
    assert (await chain.locate(REPO, "c", NAME)).source == "hub"


async def test_a_source_that_was_unreachable_is_asked_last_for_a_while() -> None:
    clock, hub, proxy = Clock(), Fake("hub", fault(Code.HUB_UNREACHABLE)), Fake("proxy")
    chain = Chain([hub, proxy], clock)
    for n in range(20):
        await chain.locate(REPO, "c", SafeName(f"{n}"))
    assert len(hub.asked) == 1
    clock.now += DOWN_S
    hub.error = None
    assert (await chain.locate(REPO, "c", NAME)).source == "hub"


async def test_any_number_of_failing_files_takes_bounded_memory() -> None:
    chain = Chain([Fake("hub"), Fake("proxy")])
    for n in range(REMEMBERED + 10):
        await chain.locate(REPO, "c", SafeName(f"{n}"), FAILED)
    assert len(chain._strikes) == REMEMBERED


def test_a_chain_of_nothing_is_a_mistake() -> None:
    with pytest.raises(ValueError):
        Chain([])
