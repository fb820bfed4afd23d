"""What the configured proxy is gets found out once, and a load balancer's key never goes to a mirror."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from agent.core.names import SafeName
from agent.embedded_hub.repo import HubFile
from agent.errors import Code, WantdError
from agent.sources.proxy import ProxySource
from tests.hub.balancer import BalancedModel, EmbeddedBalancer
from tests.hub.server import InstrumentedHub
from tests.sources.asking import ask

MakeBalancer = Callable[..., Awaitable[EmbeddedBalancer]]
MakeProxy = Callable[..., ProxySource]
Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]

KEY = "sk_verysecretkey"
REPO = "Qwen/Qwen3-0.6B"
MODEL = BalancedModel("qwen/qwen3-0.6b", {"config.json": HubFile(b"{}")}, "safetensors")


async def test_a_balancer_is_found_out_once(make_balancer: MakeBalancer, make_proxy: MakeProxy) -> None:
    balancer = await make_balancer(MODEL, key=KEY)
    proxy = make_proxy(balancer.url, key=KEY)
    assert proxy.name == "proxy"
    for _ in range(3):
        assert (await proxy.listing(ask(REPO))).source == "llmlb"
    assert proxy.name == "llmlb"
    asked = [seen.path.partition("?")[0] for seen in balancer.ledger.recent]
    manifest = "/api/models/registry/qwen%2Fqwen3-0.6b/manifest.json"
    assert asked == [f"/api/models/{REPO}/revision/main", manifest, manifest, manifest]


async def test_a_mirror_is_found_out_once_and_never_sees_the_key(hub: InstrumentedHub, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(hub.endpoint, key=KEY)
    with pytest.raises(WantdError):  # also an answer that it has no such model shows that it is one
        await proxy.listing(ask("org/missing"))
    assert proxy.name == "mirror"
    assert (await proxy.listing(ask(REPO))).source == "mirror"
    assert not hub.ledger.seen_tokens["hub"]
    assert not [seen for seen in hub.ledger.recent if "registry" in seen.path]


async def test_the_first_question_may_be_for_a_files_bytes(
    hub: InstrumentedHub, make_balancer: MakeBalancer, make_proxy: MakeProxy
) -> None:
    """The Hub made the plan and went away in mid-file: only now the proxy is asked."""
    balancer = await make_balancer(MODEL)
    query = ask(REPO, hub.repos[REPO].refs["main"])
    for url, name in ((balancer.url, "llmlb"), (hub.endpoint, "mirror")):
        proxy = make_proxy(url)
        assert (await proxy.locate(query, SafeName("config.json"))).source == name
        assert proxy.name == name


async def test_a_page_for_any_path_is_no_mirror(serve: Serve, make_proxy: MakeProxy) -> None:
    async def dashboard(request: web.Request) -> web.Response:
        if request.path.endswith("manifest.json"):
            return web.json_response({"files": [{"name": "config.json"}]})
        return web.Response(text="<!DOCTYPE html><title>Dashboard</title>", content_type="text/html")

    proxy = make_proxy(await serve(dashboard))
    await proxy.locate(ask(REPO, "c" * 40), SafeName("config.json"))
    assert proxy.name == "llmlb"


async def test_while_nothing_was_recognised_the_error_says_both(
    make_balancer: MakeBalancer, make_proxy: MakeProxy
) -> None:
    proxy = make_proxy((await make_balancer()).url)
    with pytest.raises(WantdError) as caught:
        await proxy.listing(ask(REPO))
    assert "as a load balancer" in caught.value.message
    assert "as a mirror" in caught.value.message
    assert "proxy.kind" in caught.value.hint
    assert proxy.name == "proxy"


async def test_a_proxy_that_cannot_be_reached_is_asked_once_a_question(make_proxy: MakeProxy) -> None:
    proxy = make_proxy("http://127.0.0.1:9")
    with pytest.raises(WantdError) as caught:
        await proxy.listing(ask(REPO))
    assert caught.value.code is Code.PROXY_UNREACHABLE
    assert proxy.name == "proxy"


@pytest.mark.parametrize(("kind", "name"), [("llmlb", "llmlb"), ("hub", "mirror")])
async def test_what_a_person_says_is_not_asked(make_proxy: MakeProxy, kind: str, name: str) -> None:
    assert make_proxy("http://127.0.0.1:9", kind).name == name
