"""The bytes of files: where they are, whole, in ranges, gzipped."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import aiohttp
import pytest

from agent.embedded_hub.repo import Repo
from agent.embedded_hub.server import EmbeddedHub
from agent.embedded_hub.storage import Signer
from tests.embedded_hub.conftest import REPO, WEIGHTS, content


async def locate(hub: EmbeddedHub, http: aiohttp.ClientSession, name: str = WEIGHTS) -> str:
    """What the Hub redirects to, as an absolute URL."""
    async with http.get(f"{hub.endpoint}/{REPO}/resolve/main/{name}", allow_redirects=False) as response:
        location = response.headers["Location"]
        return location if location.startswith("http") else hub.endpoint + location


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_a_weight_file_is_on_another_host_and_the_hub_tells_its_hash_and_size(
    hub: EmbeddedHub, http: aiohttp.ClientSession, repo: Repo, method: str
) -> None:
    data = content(WEIGHTS)
    url = f"{hub.endpoint}/{REPO}/resolve/main/{WEIGHTS}"
    async with http.request(method, url, allow_redirects=False) as response:
        assert response.status == 302
        assert response.headers["Location"].startswith(hub.cdn)
        assert response.headers["X-Linked-Etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
        assert response.headers["X-Linked-Size"] == str(len(data))
        assert response.headers["X-Repo-Commit"] == repo.refs["main"]
        assert int(response.headers["Content-Length"]) != len(data), "a redirect's length is not the file's"
        location = response.headers["Location"]
    async with http.get(location) as response:
        assert await response.read() == data


async def test_a_plain_file_has_its_blob_id_for_an_etag(hub: EmbeddedHub, http: aiohttp.ClientSession) -> None:
    data = content("config.json")
    async with http.get(await locate(hub, http, "config.json")) as response:
        assert await response.read() == data
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        assert response.headers["ETag"] == f'"{blob}"'
        assert response.content_length == len(data)


async def test_small_text_comes_gzipped_and_without_a_length_unless_identity_is_asked_for(
    hub: EmbeddedHub, http: aiohttp.ClientSession
) -> None:
    url = await locate(hub, http, "vocab.json")
    async with http.get(url, headers={"Accept-Encoding": "gzip, deflate"}) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert response.headers["ETag"].startswith('W/"')
        assert response.content_length is None
        assert gzip.decompress(await response.read()) == content("vocab.json")
    async with http.get(url, headers={"Accept-Encoding": "gzip", "Range": "bytes=0-9"}) as response:
        assert response.status == 200, "there are no ranges of what is gzipped"
        assert gzip.decompress(await response.read()) == content("vocab.json")
    async with http.get(url) as response:
        assert await response.read() == content("vocab.json")


@pytest.mark.parametrize(
    ("asked", "status", "start", "stop"),
    [
        ("bytes=0-9", 206, 0, 10),
        ("bytes=100-", 206, 100, None),
        ("bytes=-7", 206, -7, None),
        ("bytes=5-99999999", 206, 5, None),
        ("bytes=99999999-", 416, 0, 0),
        ("bytes=7-3", 200, 0, None),
        ("bytes=0-1,5-6", 200, 0, None),
        ("pages=1-2", 200, 0, None),
        ("bytes=0-" + "9" * 5000, 200, 0, None),
    ],
)
@pytest.mark.parametrize("on_disk", [False, True])
async def test_ranges_are_served_as_rfc_9110_has_them(
    hub: EmbeddedHub, http: aiohttp.ClientSession, tmp_path: Path, asked: str, status: int, start: int,
    stop: int | None, on_disk: bool,
) -> None:  # fmt: skip
    data = content(WEIGHTS)
    if on_disk:
        (tmp_path / WEIGHTS).write_bytes(data)
        hub.repos.add(Repo.from_directory(REPO, str(tmp_path)))
    async with http.get(await locate(hub, http), headers={"Range": asked}) as response:
        body = await response.read()
        assert response.status == status
        assert body == data[start:stop]
        if status == 206:
            begin = start % len(data)
            assert response.headers["Content-Range"] == f"bytes {begin}-{begin + len(body) - 1}/{len(data)}"
        if status == 416:
            assert response.headers["Content-Range"] == f"bytes */{len(data)}"


async def test_a_signed_url_expires_and_cannot_be_forged(hub: EmbeddedHub, http: aiohttp.ClientSession) -> None:
    url = await locate(hub, http)
    other = url.replace(WEIGHTS, "original/consolidated.pth")
    for bad in (
        url.partition("?")[0],
        url.replace("Signature=", "Signature=0"),
        url.replace("Policy=", "Policy=A"),
        other,
    ):
        async with http.get(bad) as response:
            assert response.status == 403, bad
    async with http.get(url) as response:
        assert response.status == 200
    hub.storage.signer = Signer()  # another key
    async with http.get(url) as response:
        assert response.status == 403
    hub.storage.signer.lifetime_s = 0
    async with http.get(await locate(hub, http)) as response:
        assert response.status == 403
    hub.storage.signer.lifetime_s = 60
    async with http.get(await locate(hub, http)) as response:
        assert response.status == 200


async def test_a_token_that_reaches_the_storage_is_refused(hub: EmbeddedHub, http: aiohttp.ClientSession) -> None:
    async with http.get(await locate(hub, http), headers={"Authorization": "Bearer hf_x"}) as response:
        assert response.status == 400
        assert "Only one auth mechanism allowed" in await response.text()


async def test_a_file_too_large_for_one_response_is_sent_by_ranges_only(
    hub: EmbeddedHub, http: aiohttp.ClientSession
) -> None:
    hub.storage.max_plain_bytes = 1000
    url = await locate(hub, http)
    async with http.get(url) as response:
        assert response.status == 400
    async with http.get(url, headers={"Range": "bytes=0-99"}) as response:
        assert response.status == 206
