"""The sources of a configuration: who may go where, and what another configuration changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from agent.config import Config, Hub, Proxy, report_url
from agent.core.names import SafeName
from agent.embedded_hub.repo import HubFile
from agent.errors import WantdError
from agent.net.budget import HostBudgets
from agent.sources.assembly import Assembly
from tests.hub.balancer import BalancedModel, EmbeddedBalancer
from tests.sources.asking import ask

MakeBalancer = Callable[..., Awaitable[EmbeddedBalancer]]

DEAD = Hub(endpoint="http://127.0.0.1:9")
QUERY = ask("org/name", names=(SafeName("m.gguf"),))
MODEL = BalancedModel("org/name", {"model.gguf": HubFile(b"GGUF")})


def config(**proxy: Any) -> Config:
    return Config(hub=DEAD, proxy=Proxy(**proxy))


async def test_each_source_has_an_address_rule_of_its_own() -> None:
    public = Config(hub=Hub(), proxy=Proxy(url="http://10.0.0.7:32768"))
    assembly = Assembly(public, {}, HostBudgets())
    assert not assembly.rule.private_ok
    assert assembly.rules["llmlb"].private_ok
    assert assembly.rules["llmlb"] is assembly.rules["mirror"]
    await assembly.close()


async def test_another_configuration_is_taken_over_while_the_agent_runs(make_balancer: MakeBalancer) -> None:
    first, second = await make_balancer(MODEL), await make_balancer(MODEL)
    async with AsyncExitStack() as stack:
        assembly = Assembly(config(), {}, HostBudgets())
        stack.push_async_callback(assembly.close)
        rules = assembly.rules
        with pytest.raises(WantdError):
            await assembly.chain.listing(QUERY)
        assert not rules
        for balancer in (first, second):
            await assembly.rebuild(config(url=balancer.url))
            assert (await assembly.chain.listing(QUERY)).source == "llmlb"
            assert set(assembly.rules) == {"llmlb", "mirror"}
            assert assembly.rules is rules  # the engine holds on to it
        kept = assembly.rules["llmlb"]
        await assembly.rebuild(config(url=second.url, kind="llmlb"))
        assert assembly.rules["llmlb"] is kept
        assert (await assembly.chain.listing(QUERY)).source == "llmlb"
        await assembly.rebuild(config())
        assert not rules
        with pytest.raises(WantdError):
            await assembly.chain.listing(QUERY)
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
        wanted = config(url=proxy.url, report=True, report_url=f"{url}/api/models/sync-state")
        assembly = Assembly(wanted, environ, HostBudgets())
        send = assembly.reporter(wanted)
        assert send is not None
        await send({"state": "idle"})
        await assembly.close()
    assert proxy.seen_headers[0]["Authorization"] == "Bearer sk_1"
    assert "Authorization" not in other.seen_headers[0]
    assert proxy.reports == other.reports == [{"state": "idle"}]


async def test_a_report_that_is_refused_says_so_and_nothing_is_reported_where_nobody_asked(
    make_balancer: MakeBalancer,
) -> None:
    balancer = await make_balancer(key="sk_1")
    wanted = config(url=balancer.url, report=True)
    assembly = Assembly(wanted, {}, HostBudgets())
    send = assembly.reporter(wanted)
    assert send is not None
    with pytest.raises(WantdError, match="401"):
        await send({"state": "idle"})
    assert assembly.reporter(config(url=balancer.url)) is None
    await assembly.close()
