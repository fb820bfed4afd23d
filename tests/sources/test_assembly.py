"""The sources of a configuration: who may go where, and what another configuration changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.config import Config, Hub, Live, Proxy, report_url
from agent.core.access import AddressCheck
from agent.core.names import SafeName
from agent.embedded_hub.repo import HubFile
from agent.embedded_hub.server import EmbeddedHub
from agent.errors import WantdError
from agent.net.address import AddressRule
from agent.net.budget import HostBudgets
from agent.sources.assembly import Assembly
from agent.sources.host_caches import HostCaches
from tests.fakes import FakeClock
from tests.hub.balancer import BalancedModel, EmbeddedBalancer
from tests.sources.asking import ask, http_of

MakeBalancer = Callable[..., Awaitable[EmbeddedBalancer]]

DEAD = Hub(endpoint="http://127.0.0.1:9")
NAME = SafeName("m.gguf")
QUERY = ask("org/name", names=(NAME,))
MODEL = BalancedModel("org/name", {"model.gguf": HubFile(b"GGUF")})


def config(**proxy: Any) -> Config:
    return Config(hub=DEAD, proxy=Proxy(**proxy))


async def test_a_hub_cache_of_this_host_answers_last_and_only_where_there_is_one(tmp_path: Path) -> None:
    caches = HostCaches(lambda: [str(tmp_path)], {}, list)
    for there in (False, True):
        snapshot = tmp_path / "models--org--name" / "snapshots" / ("1" * 40)
        if there:
            snapshot.mkdir(parents=True)
            (snapshot / NAME).write_bytes(b"GGUF")
        assembly = Assembly(lambda: Config(hub=DEAD), {}, HostBudgets(), FakeClock(), caches)
        try:
            if there:
                listing = await assembly.listing(replace(QUERY, revision="1" * 40))
                assert (listing.source, listing.because is not None) == ("adopted:hub", True)
            else:
                with pytest.raises(WantdError) as caught:
                    await assembly.listing(QUERY)
                assert "no source has it" not in caught.value.message
        finally:
            await assembly.close()


async def test_each_location_has_the_address_rule_of_its_source(hub: EmbeddedHub, make_balancer: MakeBalancer) -> None:
    balancer = await make_balancer(MODEL)
    for wanted, query, name, source in (
        (Config(hub=Hub(endpoint=hub.endpoint)), ask("bartowski/Qwen_Qwen3-0.6B-GGUF"), SafeName("README.md"), "hub"),
        (config(url=balancer.url), QUERY, NAME, "llmlb"),
    ):
        assembly = Assembly(lambda wanted=wanted: wanted, {}, HostBudgets(), FakeClock())
        location = await assembly.locate(query, name)
        rule = http_of(location).rule
        assert (location.source, isinstance(rule, AddressRule)) == (source, True)
        rule.check("127.0.0.1", "127.0.0.1")  # it is the endpoint's own address
        with pytest.raises(WantdError):
            rule.check("metadata", "169.254.169.254")
        await assembly.close()


async def test_another_configuration_is_in_force_with_the_next_question(make_balancer: MakeBalancer) -> None:
    first, second = await make_balancer(MODEL), await make_balancer(MODEL)
    live = Live(config())

    async def rule() -> AddressCheck:
        location = await assembly.locate(QUERY, NAME)
        assert location.source == "llmlb"
        return http_of(location).rule

    async with AsyncExitStack() as stack:
        assembly = Assembly(lambda: live.config, {}, HostBudgets(), FakeClock())
        stack.push_async_callback(assembly.close)
        with pytest.raises(WantdError):
            await assembly.listing(QUERY)
        rules = []
        for balancer in (first, second):
            live.config = config(url=balancer.url)
            assert (await assembly.listing(QUERY)).source == "llmlb"
            rules.append(await rule())
        assert rules[0] is not rules[1]
        live.config = config(url=second.url, kind="llmlb")
        assert await rule() is rules[1]  # its connections may be used again
        live.config = config()
        with pytest.raises(WantdError):
            await assembly.listing(QUERY)
    assert first.ledger.recent
    assert second.ledger.recent


@pytest.mark.parametrize(
    ("proxy", "url"),
    [
        ({"url": "http://lb:1"}, "http://lb:1/api/models/sync-state"),
        ({"url": "http://lb:1", "report_url": "http://other/x"}, "http://other/x"),
        ({"report_url": "http://other/x"}, "http://other/x"),
        ({}, ""),
    ],
)
def test_where_reports_go(proxy: dict[str, str], url: str) -> None:
    assert report_url(config(**proxy)) == url


async def test_the_key_goes_with_reports_to_the_proxy_and_to_nobody_else(make_balancer: MakeBalancer) -> None:
    proxy, other = await make_balancer(), await make_balancer()
    environ = {"LLM_RUNTIME_API_KEY": "sk_1"}
    for url in (proxy.url, other.url):
        live = Live(config(url=proxy.url, report=True, report_url=f"{url}/api/models/sync-state"))
        assembly = Assembly(lambda live=live: live.config, environ, HostBudgets(), FakeClock())
        assert await assembly.report({"state": "idle"})
        await assembly.close()
    assert proxy.seen_headers[0]["Authorization"] == "Bearer sk_1"
    assert "Authorization" not in other.seen_headers[0]
    assert proxy.reports == other.reports == [{"state": "idle"}]


async def test_a_report_that_is_refused_says_so_and_nothing_is_reported_where_nobody_asked(
    make_balancer: MakeBalancer,
) -> None:
    balancer = await make_balancer(key="sk_1")
    live = Live(config(url=balancer.url, report=True))
    assembly = Assembly(lambda: live.config, {}, HostBudgets(), FakeClock())
    with pytest.raises(WantdError, match="401"):
        await assembly.report({"state": "idle"})
    live.config = config(url=balancer.url)
    assert not await assembly.report({"state": "idle"})
    await assembly.close()
