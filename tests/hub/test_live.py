"""What people captured of the live Hub between 2025-11 and 2026-10, line by line: this Hub does the same."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from urllib.parse import parse_qs, quote, urlsplit

import aiohttp
import pytest

from tests.hub.access import TOKEN_PLAIN
from tests.hub.server import InstrumentedHub
from tests.hub.standard import PARTIAL

QWEN, WEIGHTS = "Qwen/Qwen3-0.6B", "model.safetensors"
HEX64 = re.compile(r'"([0-9a-f]{64})"')
BEARER = {"Authorization": f"Bearer {TOKEN_PLAIN}"}
WRONG = {"Authorization": "Bearer hf_nobodys"}


def resolve(hub: InstrumentedHub, name: str, repo: str = QWEN) -> str:
    return f"{hub.endpoint}/{repo}/resolve/main/{name}"


def sha256(hub: InstrumentedHub, name: str = WEIGHTS) -> str:
    return hub.repos[QWEN].main[name].sha256


async def test_a_weight_file_is_a_302_with_the_linked_headers_and_a_signed_url_of_an_hour(
    hub: InstrumentedHub, http: aiohttp.ClientSession
) -> None:
    async with http.head(resolve(hub, WEIGHTS), allow_redirects=False) as response:
        assert response.status == 302
        assert response.headers["Content-Type"] == "text/plain"
        assert response.headers["Accept-Ranges"] == "bytes"
        assert response.headers["X-Linked-Size"] == str(hub.repos[QWEN].main[WEIGHTS].size)
        assert response.headers["X-Linked-Etag"] == f'"{sha256(hub)}"'
        location = urlsplit(response.headers["Location"])
    assert location.path.startswith("/xet-bridge-us/")
    query = parse_qs(location.query)
    assert query["X-Amz-Expires"] == ["3600"]
    policy = json.loads(base64.urlsafe_b64decode(query["Policy"][0]))
    assert "DateLessThan" in policy["Statement"][0]["Condition"]


async def test_the_storages_etag_is_64_hex_digits_that_are_not_the_sha256(
    hub: InstrumentedHub, http: aiohttp.ClientSession
) -> None:
    async with http.get(resolve(hub, WEIGHTS)) as response:
        found = HEX64.fullmatch(response.headers["ETag"])
        assert found
        assert found[1] != sha256(hub)
        assert hashlib.sha256(await response.read()).hexdigest() == sha256(hub)


@pytest.mark.parametrize(("direct", "anonymous"), [("never", 302), ("token", 302), ("always", 200)])
async def test_a_token_may_get_the_file_without_a_redirect_under_the_storages_etag(
    hub: InstrumentedHub, http: aiohttp.ClientSession, direct: str, anonymous: int
) -> None:
    hub.configure(direct=direct)
    async with http.get(resolve(hub, WEIGHTS), allow_redirects=False) as response:
        assert response.status == anonymous
    async with http.get(
        resolve(hub, WEIGHTS), headers=BEARER | {"Range": "bytes=5-9"}, allow_redirects=False
    ) as response:
        if direct == "never":
            assert response.status == 302
            return
        assert response.status == 206
        assert "X-Linked-Etag" not in response.headers
        found = HEX64.fullmatch(response.headers["ETag"])
        assert found
        assert found[1] != sha256(hub)
        assert response.headers["X-Repo-Commit"] == hub.repos[QWEN].refs["main"]
        assert await response.read() == b"".join(hub.repos[QWEN].main[WEIGHTS].chunks(5, 10))
    assert hub.ledger.bytes_sent[QWEN, WEIGHTS] >= 5


async def test_a_small_file_is_a_relative_307_to_the_cache_with_its_blob_id(
    hub: InstrumentedHub, http: aiohttp.ClientSession
) -> None:
    commit, blob = hub.repos[QWEN].refs["main"], hub.repos[QWEN].main["config.json"].git_sha1
    async with http.get(resolve(hub, "config.json"), allow_redirects=False) as response:
        assert response.status == 307
        asked = quote(f"/{QWEN}/resolve/main/config.json", safe="")
        cached = f"/api/resolve-cache/models/{QWEN}/{commit}/config.json"
        assert response.headers["Location"] == f"{cached}?{asked}=&etag=%22{blob}%22"
        assert response.headers["RateLimit"].startswith('"resolvers";r=')
    async with http.get(f"{hub.endpoint}{cached}") as response:
        assert response.headers["ETag"] == f'"{blob}"'


@pytest.mark.parametrize("path", [WEIGHTS, "config.json", "nope"])
async def test_every_response_about_a_file_tells_the_quota_of_the_resolvers_and_a_429_has_no_retry_after(
    hub: InstrumentedHub, http: aiohttp.ClientSession, path: str
) -> None:
    hub.configure(resolve_quota=1, window_s=300)
    for status, left in ((None, 0), (429, 0)):
        async with http.get(resolve(hub, path), allow_redirects=False) as response:
            assert status in (None, response.status)
            assert re.fullmatch(rf'"resolvers";r={left};t=[0-9]+', response.headers["RateLimit"])
            assert response.headers["RateLimit-Policy"] == '"fixed window";"resolvers";q=1;w=300'
            assert "Retry-After" not in response.headers
    assert response.status == 429


@pytest.mark.parametrize("path", [f"api/models/{QWEN}", f"{QWEN}/resolve/main/{WEIGHTS}", "no/such/resolve/main/x"])
async def test_anonymous_responses_bear_a_warning(hub: InstrumentedHub, http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(f"{hub.endpoint}/{path}", allow_redirects=False) as response:
        assert response.headers["X-HF-Warning"].startswith("unauthenticated")
    async with http.get(f"{hub.endpoint}/{path}", headers=BEARER, allow_redirects=False) as response:
        assert "X-HF-Warning" not in response.headers


@pytest.mark.parametrize("headers", [{}, WRONG], ids=["no token", "wrong token"])
async def test_a_gated_repository_shows_anybody_its_list_and_no_file(
    hub: InstrumentedHub, http: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    async with http.get(f"{hub.endpoint}/api/models/wantd/gated?blobs=true", headers=headers) as response:
        assert response.status == 200
        siblings = (await response.json())["siblings"]
    assert {file["rfilename"] for file in siblings} == set(hub.repos["wantd/gated"].main)
    for file in siblings:
        url = resolve(hub, file["rfilename"], "wantd/gated")
        async with http.get(url, headers=headers, allow_redirects=False) as response:
            assert (response.status, response.headers["X-Error-Code"]) == (401, "GatedRepo")


async def test_a_repository_may_list_a_shard_that_is_not_there(
    hub: InstrumentedHub, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{hub.endpoint}/api/models/{PARTIAL}/tree/main") as response:
        listed = [entry["path"] for entry in await response.json()]
    found = {}
    for name in listed:
        async with http.head(resolve(hub, name, PARTIAL)) as response:
            found[name] = (response.status, response.headers.get("X-Error-Code"))
    lost = {name for name, (status, _) in found.items() if status >= 400}
    assert lost == {"model-00002-of-00003.safetensors"}
    assert {found[name] for name in lost} == {(404, "EntryNotFound")}


async def test_a_trees_entry_has_the_pointers_blob_id_the_sha256_and_a_xet_hash(
    hub: InstrumentedHub, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{hub.endpoint}/api/models/{QWEN}/tree/main") as response:
        entries = {entry["path"]: entry for entry in await response.json()}
    size = hub.repos[QWEN].main[WEIGHTS].size
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256(hub)}\nsize {size}\n".encode()
    entry = entries[WEIGHTS]
    assert entry.pop("xetHash") not in (None, sha256(hub))
    assert entry == {
        "type": "file",
        "oid": hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest(),
        "size": size,
        "lfs": {"oid": sha256(hub), "size": size, "pointerSize": len(pointer)},
        "path": WEIGHTS,
    }
    assert entries["config.json"].keys() == {"type", "oid", "size", "path"}
