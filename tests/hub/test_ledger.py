"""Requests and bytes are counted as they went over the wire; options change a running Hub."""

from __future__ import annotations

import aiohttp

from tests.hub.server import InstrumentedHub

QWEN, WEIGHTS = "Qwen/Qwen3-0.6B", "model.safetensors"


async def locate(hub: InstrumentedHub, http: aiohttp.ClientSession) -> str:
    url = f"{hub.endpoint}/{QWEN}/resolve/main/{WEIGHTS}"
    async with http.head(url, allow_redirects=False) as response:
        return response.headers["Location"]


async def test_bytes_and_requests_are_counted_by_file(hub: InstrumentedHub, http: aiohttp.ClientSession) -> None:
    url = await locate(hub, http)
    for _ in range(2):
        async with http.get(url, headers={"Range": "bytes=10-29"}) as response:
            await response.read()
    async with http.head(url) as response:
        assert response.status == 200
    assert hub.ledger.bytes_sent == {(QWEN, WEIGHTS): 40}
    assert hub.ledger.requests == {(QWEN, WEIGHTS): 2}
    last = hub.ledger.recent[-2]
    assert (last.listener, last.method, last.range, last.status, last.authorized, last.bytes_sent) == (
        "cdn", "GET", "bytes=10-29", 206, False, 20
    )  # fmt: skip
    assert "Signature" not in last.path


async def test_refusals_and_unknown_paths_are_recorded_too(hub: InstrumentedHub, http: aiohttp.ClientSession) -> None:
    hub.configure(api_quota=1)
    for path, status in ((f"/api/models/{QWEN}", 200), (f"/api/models/{QWEN}", 429), ("/no/where", 404)):
        async with http.get(hub.endpoint + path) as response:
            assert response.status == status
    assert [seen.status for seen in hub.ledger.recent] == [200, 429, 404]
    assert not hub.ledger.requests


async def test_options_take_effect_at_once_and_leave_the_others_alone(
    hub: InstrumentedHub, http: aiohttp.ClientSession
) -> None:
    url = await locate(hub, http)
    hub.configure(url_lifetime_s=0, max_plain_bytes=1000)
    async with http.get(url) as response:
        assert response.status == 400, "larger than what is sent without Range"
    async with http.get(await locate(hub, http)) as response:
        assert response.status == 403, "born expired"
    hub.configure(max_plain_bytes=1 << 40)
    async with http.get(url) as response:
        assert response.status == 200
    hub.expire_urls()
    async with http.get(url) as response:
        assert response.status == 403
    assert hub.options.url_lifetime_s == 0
