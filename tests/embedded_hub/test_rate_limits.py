"""Quotas: counted for each client, told with each response, new with each window."""

from __future__ import annotations

import aiohttp
import pytest

from agent.embedded_hub.rate_limits import API, RESOLVERS, RateLimits
from agent.embedded_hub.server import EmbeddedHub
from tests.embedded_hub.conftest import REPO, WEIGHTS


def test_a_quota_is_counted_down_refused_and_given_again_with_the_next_window() -> None:
    now = [1000.0]
    limits = RateLimits(api=2, window_s=300, clock=lambda: now[0])
    told = []
    for _ in range(3):
        allowed, headers = limits.take(API, "a")
        told.append((allowed, headers["RateLimit"]))
        now[0] += 1
    assert told == [(True, '"api";r=1;t=300'), (True, '"api";r=0;t=299'), (False, '"api";r=0;t=298')]
    assert limits.take(API, "a")[1]["RateLimit-Policy"] == '"fixed window";"api";q=2;w=300'
    now[0] = 1299.9
    assert not limits.take(API, "a")[0]
    now[0] = 1300.0
    assert limits.take(API, "a") == (
        True, {"RateLimit": '"api";r=1;t=300', "RateLimit-Policy": '"fixed window";"api";q=2;w=300'}
    )  # fmt: skip


@pytest.mark.parametrize("begin", [0.1, 764.215, 946.543])
def test_a_window_never_lasts_longer_than_it_says(begin: float) -> None:
    limits = RateLimits(clock=lambda: begin)
    assert limits.take(API, "a")[1]["RateLimit"].endswith(";t=300")


def test_clients_and_buckets_do_not_share_a_quota() -> None:
    limits = RateLimits(api=1, resolvers=1)
    asked = [(API, "a"), (API, "b"), (RESOLVERS, "a"), (API, "a")]
    assert [limits.take(bucket, client)[0] for bucket, client in asked] == [True, True, True, False]


@pytest.mark.parametrize(
    ("path", "bucket"),
    [
        (f"/api/models/{REPO}", "api"),
        ("/api/models/no/such", "api"),
        (f"/{REPO}/resolve/main/{WEIGHTS}", "resolvers"),
        (f"/{REPO}/resolve/main/config.json", "resolvers"),
        (f"/{REPO}/resolve/main/nope", "resolvers"),
        (f"/api/resolve-cache/models/{REPO}/{'0' * 40}/config.json", "resolvers"),
    ],
)
async def test_every_response_of_the_hub_tells_its_quota(
    hub: EmbeddedHub, http: aiohttp.ClientSession, path: str, bucket: str
) -> None:
    async with http.get(hub.endpoint + path, allow_redirects=False) as response:
        quota = {"api": 500, "resolvers": 3000}[bucket]
        assert response.headers["RateLimit"] == f'"{bucket}";r={quota - 1};t=300'
        assert response.headers["RateLimit-Policy"] == f'"fixed window";"{bucket}";q={quota};w=300'


async def test_a_refusal_is_one_client_s_and_one_bucket_s(hub: EmbeddedHub, http: aiohttp.ClientSession) -> None:
    hub.limits = RateLimits(api=1)
    url = f"{hub.endpoint}/api/models/{REPO}"
    for status in (200, 429):
        async with http.get(url) as response:
            assert response.status == status
    async with http.get(url, headers={"Authorization": "Bearer hf_x"}) as response:
        assert response.status == 200
    async with http.head(f"{hub.endpoint}/{REPO}/resolve/main/{WEIGHTS}", allow_redirects=False) as response:
        assert response.status == 302
