"""The Hub source believes nothing it is told, spends no request it can save, and keeps its token to itself."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from loguru import logger

from agent.core.names import RepoId, SafeName
from agent.errors import Code, WantdError
from agent.sources.hub import MAX_REMEMBERED, HubSource
from tests.hub.access import TOKEN_GRANTED
from tests.hub.faults import Faults
from tests.hub.server import InstrumentedHub
from tests.sources.asking import ask, http_of

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
MakeSource = Callable[..., HubSource]

REPO = RepoId("org/name")
COMMIT = "c" * 40
SHA256, SHA1 = "a" * 64, "b" * 40
PLAIN = {"rfilename": "README.md", "size": 5, "blobId": SHA1}
LFS = {"rfilename": "m.gguf", "size": 7, "blobId": SHA1, "lfs": {"sha256": SHA256, "size": 7, "pointerSize": 130}}
SECRET = "hf_verysecrettoken"


def model(**changes: Any) -> dict[str, Any]:
    return {"id": REPO, "sha": COMMIT, "siblings": [PLAIN, LFS]} | changes


async def list_of(answer: Any, serve: Serve, make_source: MakeSource) -> Any:
    async def hub(_: web.Request) -> web.Response:
        return web.json_response(answer)

    return await make_source(await serve(hub)).listing(ask(REPO, "main"))


async def test_a_repository_in_another_case_is_the_same_one(hub: InstrumentedHub, make_source: MakeSource) -> None:
    listing = await make_source(hub.endpoint).listing(ask("QWEN/qwen3-0.6b", "main"))
    assert listing.commit == hub.repos["Qwen/Qwen3-0.6B"].refs["main"]


async def test_a_quota_that_is_used_up_is_told_without_a_retry_after(
    hub: InstrumentedHub, make_source: MakeSource
) -> None:
    hub.configure(api_quota=0, window_s=300)
    with pytest.raises(WantdError) as caught:
        await make_source(hub.endpoint).listing(ask(REPO, "main"))
    assert caught.value.code == Code.RATE_LIMITED
    assert caught.value.retry_after_s == pytest.approx(300, abs=30)


async def test_a_renamed_repository_is_found(hub: InstrumentedHub, make_source: MakeSource) -> None:
    repo = RepoId("Qwen/Qwen2.5-7B-Chat-GGUF")
    source = make_source(hub.endpoint)
    listing = await source.listing(ask(repo, "main"))
    for file in listing.files:
        assert (await source.locate(ask(repo, listing.commit), file.name)).size == file.size


@pytest.mark.parametrize("siblings", [None, [{"rfilename": "README.md"}], [{"rfilename": "m.gguf", "size": 7}]])
@pytest.mark.parametrize("host", ["https://huggingface.co", "", "https://evil.example"])
async def test_a_mirror_without_sizes_is_read_page_by_page(
    serve: Serve, make_source: MakeSource, siblings: Any, host: str
) -> None:
    first = [{"type": "directory", "path": "d", "oid": SHA1}, {"type": "file", "path": "d/x", "oid": SHA1, "size": 5}]
    last = [{"type": "file", "path": "m.gguf", "oid": SHA1, "size": 7, "lfs": {"oid": SHA256, "size": 7}}]

    async def mirror(request: web.Request) -> web.Response:
        if "/tree/" not in request.path:
            return web.json_response(model(siblings=siblings))
        assert request.path == f"/hf/api/models/{REPO}/tree/{COMMIT}"
        if request.query.get("cursor") == "a=b":
            return web.json_response(last)
        assert request.query_string == "recursive=true&expand=false"
        link = f'<{host}/api/models/{REPO}/tree/{COMMIT}?recursive=true&cursor=a%3Db>; rel="next"'
        return web.json_response(first, headers={"Link": link})

    listing = await make_source(await serve(mirror) + "/hf").listing(ask(REPO, "main"))
    assert [(file.name, file.size, file.sha256, file.git_sha1) for file in listing.files] == [
        ("d/x", 5, None, SHA1),
        ("m.gguf", 7, SHA256, None),
    ]


async def test_pages_without_end_end(serve: Serve, make_source: MakeSource) -> None:
    asked = 0

    async def mirror(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        if "/tree/" not in request.path:
            return web.json_response(model(siblings=None))
        return web.json_response([], headers={"Link": f"</x?cursor={asked}>; rel=next"})

    with pytest.raises(WantdError, match="does not end"):
        await make_source(await serve(mirror)).listing(ask(REPO, "main"))
    assert asked <= 250


@pytest.mark.parametrize(
    "answer",
    [
        [], None, "text", 1, {}, model(sha=None), model(sha="main"), model(sha=COMMIT.upper()), model(sha=[COMMIT]),
        model(siblings={}), model(siblings=["README.md"]), model(siblings=[[]]), model(siblings="x"),
        model(siblings=[PLAIN | {"rfilename": 5}]),
        model(siblings=[PLAIN | {"rfilename": None}]),
        model(siblings=[PLAIN | {"size": -1}]),
        model(siblings=[PLAIN | {"size": "5"}]),
        model(siblings=[PLAIN | {"size": 5.0}]),
        model(siblings=[PLAIN | {"size": True}]),
        model(siblings=[PLAIN | {"size": 2**60}]),
        model(siblings=[PLAIN | {"size": 10**30}]),
        model(siblings=[PLAIN | {"blobId": "x" * 40}]),
        model(siblings=[PLAIN | {"blobId": SHA1.upper()}]),
        model(siblings=[PLAIN | {"blobId": 5}]),
        model(siblings=[LFS | {"lfs": True}]),
        model(siblings=[LFS | {"lfs": {"size": 7}}]),
        model(siblings=[LFS | {"lfs": {"sha256": SHA1, "size": 7}}]),
        model(siblings=[LFS | {"lfs": {"sha256": SHA256, "size": 8}}]),
        model(siblings=[LFS | {"lfs": {"sha256": f"{SHA256}\n", "size": 7}}]),
        model(siblings=[PLAIN] * 100_001),
    ],
)  # fmt: skip
async def test_an_answer_that_makes_no_sense_is_refused(answer: Any, serve: Serve, make_source: MakeSource) -> None:
    with pytest.raises(WantdError) as caught:
        await list_of(answer, serve, make_source)
    assert (caught.value.code, caught.value.retryable) == (Code.HUB_PROTOCOL, False)


@pytest.mark.parametrize(
    "names",
    [
        ["../x"],
        ["/etc/passwd"],
        ["a\x00b"],
        ["a\\b"],
        [""],
        ["a//b"],
        [".wantd.json"],
        ["A", "a"],
        ["a", "a/b"],
        ["a", "a"],
    ],
)
async def test_names_that_could_do_harm_are_refused(names: list[str], serve: Serve, make_source: MakeSource) -> None:
    with pytest.raises(WantdError) as caught:
        await list_of(model(siblings=[PLAIN | {"rfilename": name} for name in names]), serve, make_source)
    assert caught.value.code is Code.FORBIDDEN_PATH


async def test_a_login_page_in_between_is_called_by_its_name(serve: Serve, make_source: MakeSource) -> None:
    async def portal(_: web.Request) -> web.Response:
        return web.Response(text="<!DOCTYPE html><title>Welcome to our WLAN</title>", content_type="text/html")

    with pytest.raises(WantdError, match="HTML page") as caught:
        await make_source(await serve(portal)).listing(ask(REPO, "main"))
    assert caught.value.code is Code.HUB_PROTOCOL


async def test_another_commit_than_the_one_asked_for_is_refused(serve: Serve, make_source: MakeSource) -> None:
    async def hub(_: web.Request) -> web.Response:
        return web.json_response(model())

    source = make_source(await serve(hub))
    await source.listing(ask(REPO, COMMIT))
    with pytest.raises(WantdError, match="asked for commit"):
        await source.listing(ask(REPO, "d" * 40))


async def test_a_disabled_model_is_told_as_one(serve: Serve, make_source: MakeSource) -> None:
    with pytest.raises(WantdError, match="disabled") as caught:
        await list_of(model(disabled=True), serve, make_source)
    assert caught.value.code is Code.MODEL_NOT_FOUND


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Linked-Size": "8"},
        {"X-Linked-Etag": f'"{"d" * 64}"'},
        {"X-Repo-Commit": "d" * 40},
        {"X-Repo-Commit": "main"},
    ],
)
async def test_a_file_that_is_announced_as_another_is_refused(
    serve: Serve, make_source: MakeSource, headers: dict[str, str]
) -> None:
    async def hub(request: web.Request) -> web.Response:
        if request.path.startswith("/api"):
            return web.json_response(model())
        raise web.HTTPFound("http://cdn.invalid/x", headers=headers)

    source = make_source(await serve(hub))
    await source.listing(ask(REPO, "main"))
    with pytest.raises(WantdError) as caught:
        await source.locate(ask(REPO, COMMIT), SafeName("m.gguf"))
    assert caught.value.code is Code.HUB_PROTOCOL


async def test_a_mirror_that_serves_plain_files_itself_is_asked_once(serve: Serve, make_source: MakeSource) -> None:
    heads = 0

    async def mirror(request: web.Request) -> web.Response:
        nonlocal heads
        if request.path.startswith("/api"):
            return web.json_response(model(siblings=[PLAIN | {"rfilename": f"{n}.json"} for n in range(9)]))
        heads += 1
        return web.Response(body=b"12345", headers={"ETag": '"whatever"'})

    endpoint = await serve(mirror)
    source = make_source(endpoint)
    listing = await source.listing(ask(REPO, "main"))
    located = [await source.locate(ask(REPO, COMMIT), file.name) for file in listing.files]
    assert heads == 1
    assert [http_of(place).url for place in located] == [
        f"{endpoint}/{REPO}/resolve/{COMMIT}/{n}.json" for n in range(9)
    ]
    assert {(place.etag, place.size) for place in located} == {(SHA1, 5)}


async def test_a_mirror_without_head_is_asked_with_get(serve: Serve, make_source: MakeSource) -> None:
    async def mirror(request: web.Request) -> web.Response:
        if request.method == "HEAD":
            return web.Response(status=405)
        assert request.headers["Range"] == "bytes=0-0"
        return web.Response(status=206, body=b"x", headers={"Content-Range": "bytes 0-0/77"})

    location = await make_source(await serve(mirror)).locate(ask(REPO, COMMIT), SafeName("m.gguf"))
    assert location.size == 77


async def test_a_mirror_that_passes_on_to_the_hub_is_followed_to_the_bytes_after_a_failure(
    serve: Serve, make_source: MakeSource
) -> None:
    async def cdn(request: web.Request) -> web.Response:
        assert request.method == "GET"
        return web.Response(status=206, body=b"x", headers={"Content-Range": "bytes 0-0/7", "ETag": '"cdn"'})

    async def true_hub(_: web.Request) -> web.Response:
        raise web.HTTPFound(f"{cdn_url}/bytes?Signature=s")

    async def mirror(_: web.Request) -> web.Response:
        raise web.HTTPFound(f"{hub_url}/org/name")

    cdn_url, hub_url = await serve(cdn), await serve(true_hub)
    source = make_source(await serve(mirror), token=SECRET)
    first = await source.locate(ask(REPO, COMMIT), SafeName("m.gguf"))
    assert (http_of(first).url, http_of(first).headers) == (f"{hub_url}/org/name", {})
    failed = WantdError(Code.HUB_UNREACHABLE, "it answered 302", "…")
    second = await source.locate(ask(REPO, COMMIT), SafeName("m.gguf"), failed)
    assert (http_of(second).url, http_of(second).headers) == (f"{cdn_url}/bytes?Signature=s", {})


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 503])
async def test_the_storages_refusal_says_nothing_about_the_model(
    hub: InstrumentedHub, make_source: MakeSource, status: int
) -> None:
    hub.faults.set("cdn/*", Faults(status=status))
    source = make_source(hub.endpoint)
    repo = RepoId("wantd/revisions")
    failed = WantdError(Code.STALLED, "…", "…")
    with pytest.raises(WantdError) as caught:
        await source.locate(ask(repo, hub.repos[repo].refs["main"]), SafeName("model-Q4_K_M.gguf"), failed)
    assert (caught.value.code, caught.value.retryable) == (Code.HUB_UNREACHABLE, True)


async def test_offline_means_no_request_at_all(hub: InstrumentedHub, make_source: MakeSource) -> None:
    source = make_source(hub.endpoint, offline=True)
    for asking in (source.listing(ask(REPO, "main")), source.locate(ask(REPO, COMMIT), SafeName("x"))):
        with pytest.raises(WantdError, match="offline") as caught:
            await asking
        assert (caught.value.code, caught.value.retryable) == (Code.HUB_UNREACHABLE, False)
        assert "HF_HUB_OFFLINE" in caught.value.hint
    assert not hub.ledger.recent


async def test_the_token_goes_to_the_hub_and_nowhere_else(hub: InstrumentedHub, make_source: MakeSource) -> None:
    source = make_source(hub.endpoint, token=TOKEN_GRANTED)
    repo = RepoId("wantd/gated")
    listing = await source.listing(ask(repo, "main"))
    for file in listing.files:
        for failed in (None, WantdError(Code.STALLED, "…", "…")):
            location = await source.locate(ask(repo, listing.commit), file.name, failed)
            assert ("Authorization" in http_of(location).headers) is http_of(location).url.startswith(hub.endpoint)
    assert hub.ledger.seen_tokens["hub"]
    assert not hub.ledger.seen_tokens["cdn"]


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "ü", "a\x00"])
async def test_a_token_that_cannot_be_one_is_said_before_it_is_sent(
    hub: InstrumentedHub, make_source: MakeSource, token: str
) -> None:
    with pytest.raises(WantdError) as caught:
        await make_source(hub.endpoint, token=token).listing(ask(REPO, "main"))
    assert caught.value.code is Code.TOKEN_INVALID
    assert token not in str(caught.value)
    assert not hub.ledger.recent


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 418, 429, 500, 503])
async def test_no_error_repr_or_log_line_shows_the_token_even_when_a_server_sends_it_back(
    serve: Serve, make_source: MakeSource, status: int
) -> None:
    async def echo(request: web.Request) -> web.Response:
        said = f"you sent {request.headers.get('Authorization')}"
        headers = {"X-Error-Message": said, "Location": f"ftp://{said.replace(' ', '')}/?Signature={SECRET}"}
        headers["Retry-After"] = "60"
        return web.Response(status=status, text=said, headers=headers)

    log = io.StringIO()
    sink = logger.add(log, level=0, backtrace=True, diagnose=True)
    try:
        source = make_source(await serve(echo), token=SECRET)
        shown = [repr(source)]
        for asking in (
            source.listing(ask(REPO, "main")),
            source.locate(ask(REPO, COMMIT), SafeName("x")),
            source.locate(ask(REPO, COMMIT), SafeName("x"), WantdError(Code.STALLED, "…", "…")),
        ):
            try:
                shown.append(repr(await asking))
            except WantdError as error:
                shown += [str(error), repr(error), repr(error.to_json()), str(error.__cause__)]
                logger.error("it failed: {}", error)
    finally:
        logger.remove(sink)
    assert SECRET not in "\n".join(shown) + log.getvalue()


async def test_what_is_remembered_of_listings_is_bounded(serve: Serve, make_source: MakeSource) -> None:
    siblings = [PLAIN | {"rfilename": f"{n}"} for n in range(40_000)]

    async def hub(_: web.Request) -> web.Response:
        return web.json_response(model(siblings=siblings))

    source = make_source(await serve(hub))
    for n in range(4):
        await source.listing(ask(f"org/name{n}", "main"))
    assert sum(len(files) for files in source._listed.values()) <= MAX_REMEMBERED


async def test_many_questions_at_once_are_all_answered(hub: InstrumentedHub, make_source: MakeSource) -> None:
    source = make_source(hub.endpoint)
    listings = await asyncio.gather(*(source.listing(ask("wantd/split", "main")) for _ in range(50)))
    assert len({listing.commit for listing in listings}) == 1
