"""What the live Hub answered, as people captured it between November 2025 and October 2026: each is understood."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agent.config import Transfer as TransferConfig
from agent.core.names import RepoId, SafeName
from agent.core.remote import Fetched, FetchRequest, Location
from agent.errors import Code, WantdError
from agent.net.budget import HostBudgets
from agent.sources.hub import HubSource
from agent.transfer.engine import Engine
from tests.sources.asking import ask

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
MakeSource = Callable[..., HubSource]

REPO = RepoId("org/name")
COMMIT = "c" * 40
WEIGHTS, README = SafeName("model-00001-of-00002.safetensors"), SafeName("README.md")
BYTES, WORDS = b"safetensors" * 200_000, b"# A model\n"
SHA256 = hashlib.sha256(BYTES).hexdigest()
SHA1 = hashlib.sha1(b"blob %d\0" % len(WORDS) + WORDS).hexdigest()
XET = "e" * 64  # the storage's own name for the content: 64 hex digits, and no SHA-256
LISTED = {
    "id": REPO,
    "sha": COMMIT,
    "gated": "manual",
    "siblings": [
        {"rfilename": README, "size": len(WORDS), "blobId": SHA1},
        {
            "rfilename": WEIGHTS,
            "size": len(BYTES),
            "blobId": "d" * 40,
            "lfs": {"sha256": SHA256, "size": len(BYTES), "pointerSize": 134},
        },
    ],
}
QUOTA = {
    "ratelimit": '"resolvers";r=2999;t=141',
    "ratelimit-policy": '"fixed window";"resolvers";q=3000;w=300',
    "x-hf-warning": "unauthenticated; Set a HF_TOKEN to enable higher rate limits",
}

Respond = Callable[[web.Request], web.StreamResponse]


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    config = TransferConfig(connections=2, retry_min_s=0.01, retry_max_s=0.02)
    engine = Engine(lambda: config, HostBudgets(), {})
    yield engine
    await engine.close()


def hub_that(respond: Respond) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A Hub that lists the repository to all, and responds for its files as the test says."""

    async def hub(request: web.Request) -> web.StreamResponse:
        if request.path.startswith(f"/api/models/{REPO}"):
            return web.json_response(LISTED, headers=QUOTA)
        return respond(request)

    return hub


def content(request: web.Request, data: bytes, headers: dict[str, str]) -> web.Response:
    """The bytes, or the range of them that is asked for."""
    asked = request.http_range
    if asked.start is None:
        return web.Response(body=data, headers=headers)
    end = min(asked.stop or len(data), len(data))
    headers = {**headers, "Content-Range": f"bytes {asked.start}-{end - 1}/{len(data)}"}
    return web.Response(status=206, body=data[asked.start : end], headers=headers)


async def fetch(engine: Engine, source: HubSource, name: SafeName, directory: Path) -> Fetched:
    listing = await source.listing(ask(REPO))
    file = next(file for file in listing.files if file.name == name)

    async def locate(failed: WantdError | None) -> Location:
        return await source.locate(ask(REPO, listing.commit), name, failed)

    part = str(directory / "x.part")
    request = FetchRequest(name, part, str(directory / "x.json"), file.size, file.sha256, file.git_sha1)
    return await asyncio.wait_for(engine.fetch(request, locate, lambda *_: None), 30)


@pytest.mark.parametrize("token", [None, "hf_token"])
@pytest.mark.parametrize(("name", "data"), [(WEIGHTS, BYTES), (README, WORDS)])
@pytest.mark.parametrize("etag", [f'"{XET}"', f'W/"{XET}"', '"0123456789abcdef"', f'"{"a" * 40}"'])
async def test_the_etag_of_a_file_that_comes_without_a_redirect_contradicts_nothing(
    serve: Serve,
    make_source: MakeSource,
    engine: Engine,
    tmp_path: Path,
    etag: str,
    token: str | None,
    name: SafeName,
    data: bytes,
) -> None:
    def straight(request: web.Request) -> web.Response:
        return content(request, data, {"ETag": etag, "Accept-Ranges": "bytes"})

    source = make_source(await serve(hub_that(straight)), token=token)
    fetched = await fetch(engine, source, name, tmp_path)
    assert (fetched.verified, fetched.sha256) == (True, hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("etag", [XET, "a" * 40])
async def test_nor_does_it_where_the_listing_is_not_remembered(
    serve: Serve, make_source: MakeSource, etag: str
) -> None:
    def straight(request: web.Request) -> web.Response:
        return content(request, BYTES, {"ETag": f'"{etag}"'})

    source = make_source(await serve(hub_that(straight)))
    for failed in (None, WantdError(Code.STALLED, "…", "…")):
        location = await source.locate(ask(REPO, COMMIT), WEIGHTS, failed)
        assert (location.etag, location.sha256) == (etag, None)


async def test_bytes_that_come_without_a_redirect_and_are_wrong_are_found_out_by_their_hash(
    serve: Serve, make_source: MakeSource, engine: Engine, tmp_path: Path
) -> None:
    def straight(request: web.Request) -> web.Response:
        return content(request, BYTES[::-1], {"ETag": f'"{SHA256}"'})

    source = make_source(await serve(hub_that(straight)))
    with pytest.raises(WantdError) as caught:
        await fetch(engine, source, WEIGHTS, tmp_path)
    assert caught.value.code is Code.CHECKSUM_MISMATCH


async def test_a_weight_file_comes_from_the_storage_whose_own_etag_counts_for_nothing(
    serve: Serve, make_source: MakeSource, engine: Engine, tmp_path: Path
) -> None:
    seen: list[tuple[str, str | None]] = []
    signed = f"/xet-bridge-us/6f?X-Amz-Expires=3600&Policy=eyJ%2B_&Signature=a~b-c__&etag=%22{SHA256}%22"

    async def storage(request: web.Request) -> web.Response:
        seen.append((request.raw_path, request.headers.get("Authorization")))
        return content(request, BYTES, {"ETag": f'"{XET}"', "Accept-Ranges": "bytes"})

    def redirect(_: web.Request) -> web.Response:
        return web.Response(
            status=302,
            text="Found. Redirecting to …",
            headers={
                "Accept-Ranges": "bytes",
                "X-Repo-Commit": COMMIT,
                "X-Linked-Size": str(len(BYTES)),
                "X-Linked-Etag": f'"{SHA256}"',
                "X-Xet-Hash": XET,
                "Location": storage_url + signed,
                **QUOTA,
            },
        )

    storage_url = await serve(storage)
    source = make_source(await serve(hub_that(redirect)), token="hf_token")
    fetched = await fetch(engine, source, WEIGHTS, tmp_path)
    assert (fetched.verified, fetched.sha256) == (True, SHA256)
    assert set(seen) == {(signed, None)}


async def test_a_small_file_comes_from_the_resolve_cache_of_the_hub_itself(
    serve: Serve, make_source: MakeSource, engine: Engine, tmp_path: Path
) -> None:
    seen: list[tuple[str, str, str | None]] = []
    cached = f"/api/resolve-cache/models/{REPO}/{COMMIT}/{README}?%2F{REPO}%2Fresolve%2Fmain=&etag=%22{SHA1}%22"

    def hub(request: web.Request) -> web.Response:
        seen.append((request.method, request.raw_path, request.headers.get("Authorization")))
        if request.raw_path == cached:
            return content(request, WORDS, {"ETag": f'"{SHA1}"', **QUOTA})
        headers = {"Location": cached, "X-Repo-Commit": COMMIT, "X-Linked-Etag": f'"{SHA1}"', **QUOTA}
        return web.Response(status=307, headers=headers)

    source = make_source(await serve(hub_that(hub)), token="hf_token")
    assert (await fetch(engine, source, README, tmp_path)).verified
    assert seen[-1] == ("GET", cached, "Bearer hf_token")


async def test_a_429_without_retry_after_is_waited_out_as_its_rate_limit_says(
    serve: Serve, make_source: MakeSource
) -> None:
    def spent(_: web.Request) -> web.Response:
        headers = {"ratelimit": '"resolvers";r=0;t=141', "ratelimit-policy": QUOTA["ratelimit-policy"]}
        return web.Response(status=429, headers=headers)

    source = make_source(await serve(hub_that(spent)))
    await source.listing(ask(REPO))
    for _ in range(2):  # told by the Hub, then known beforehand
        with pytest.raises(WantdError) as caught:
            await source.locate(ask(REPO, COMMIT), WEIGHTS)
        assert (caught.value.code, caught.value.retryable) == (Code.RATE_LIMITED, True)
        assert caught.value.retry_after_s is not None
        assert 60 < caught.value.retry_after_s <= 142  # t and a second more


@pytest.mark.parametrize("name", [README, WEIGHTS])
@pytest.mark.parametrize("token", [None, "hf_wrong"])
async def test_a_gated_file_is_called_gated_with_and_without_a_token(
    serve: Serve, make_source: MakeSource, engine: Engine, tmp_path: Path, token: str | None, name: SafeName
) -> None:
    def gate(_: web.Request) -> web.Response:
        headers = {"X-Error-Code": "GatedRepo", "X-Error-Message": f"Access to model {REPO} is restricted."}
        return web.Response(status=401, headers=headers | QUOTA)

    endpoint = await serve(hub_that(gate))
    with pytest.raises(WantdError) as caught:
        await fetch(engine, make_source(endpoint, token=token), name, tmp_path)
    error = caught.value
    assert (error.code, error.retryable, error.model, error.file) == (Code.GATED, False, REPO, name)
    assert f"{endpoint}/{REPO}" in error.hint
    assert ("valid" in error.hint) is (token is not None)  # the Hub says the same to a token that it does not know


async def test_a_gated_file_is_called_gated_also_where_files_came_straight_before(
    serve: Serve, make_source: MakeSource, engine: Engine, tmp_path: Path
) -> None:
    gated = False

    def gate(request: web.Request) -> web.Response:
        if gated:
            return web.Response(status=401, headers={"X-Error-Code": "GatedRepo"})
        return content(request, WORDS, {"ETag": f'"{SHA1}"'})

    source = make_source(await serve(hub_that(gate)))
    await fetch(engine, source, README, tmp_path)
    (tmp_path / "x.part").unlink()
    gated = True
    with pytest.raises(WantdError) as caught:
        await fetch(engine, source, README, tmp_path)
    assert caught.value.code is Code.GATED


@pytest.mark.parametrize("headers", [{}, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}])
async def test_a_shard_that_is_listed_and_not_there_is_named(
    serve: Serve, make_source: MakeSource, engine: Engine, tmp_path: Path, headers: dict[str, str]
) -> None:
    def absent(_: web.Request) -> web.Response:
        return web.Response(status=404, headers=headers)

    with pytest.raises(WantdError) as caught:
        await fetch(engine, make_source(await serve(hub_that(absent))), WEIGHTS, tmp_path)
    error = caught.value
    assert (error.code, error.retryable, error.file) == (Code.FILE_NOT_FOUND, False, WEIGHTS)
    assert WEIGHTS in error.message and REPO in error.message and "lists" in error.message


async def test_a_tree_tells_the_sha256_of_the_content_beside_two_other_hashes(
    serve: Serve, make_source: MakeSource
) -> None:
    entry: dict[str, Any] = {
        "type": "file",
        "oid": "d" * 40,  # of the pointer
        "size": len(BYTES),
        "lfs": {"oid": SHA256, "size": len(BYTES), "pointerSize": 134},
        "xetHash": XET,
        "path": WEIGHTS,
    }

    async def hub(request: web.Request) -> web.Response:
        if "/tree/" in request.path:
            return web.json_response([entry], headers=QUOTA)
        return web.json_response({"id": REPO, "sha": COMMIT})

    (file,) = (await make_source(await serve(hub)).listing(ask(REPO))).files
    assert (file.name, file.size, file.sha256, file.git_sha1) == (WEIGHTS, len(BYTES), SHA256, None)
