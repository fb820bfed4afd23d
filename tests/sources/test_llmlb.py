"""The load balancer as a source: its ids, routes and manifests, and what it is not believed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from agent.core.names import SafeName, store_name
from agent.core.remote import Location
from agent.embedded_hub.repo import HubFile
from agent.errors import Code, WantdError
from agent.sources.llmlb import LlmlbSource
from agent.sources.llmlb_parse import parse_manifest
from tests.hub.balancer import BalancedModel, EmbeddedBalancer, hub_url
from tests.sources.asking import ask, http_of

MakeBalancer = Callable[..., Awaitable[EmbeddedBalancer]]
MakeLlmlb = Callable[..., LlmlbSource]
Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]

REPO = "bartowski/Qwen_Qwen3-0.6B-GGUF"
NAME = SafeName("Qwen_Qwen3-0.6B-Q4_K_M.gguf")
BYTES = HubFile(b"GGUF" + bytes(5000))
DEAD = "http://127.0.0.1:9"
KEY = "sk_verysecretkey"
CATALOGED = ask(REPO, model="qwen3", names=(NAME,))


def qwen3(**more: Any) -> BalancedModel:
    return BalancedModel("qwen3", {"model.gguf": BYTES}, quantization="Q4_K_M", **more)


def entries(files: list[dict[str, Any]], query: Any = CATALOGED, **about: Any) -> list[tuple[str, str]]:
    """(the balancer's name, ours) of what a manifest offers for a query."""
    return [(e.own, e.name) for e in parse_manifest({"files": files, **about}).files_for(query)]


# -- ids and routes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["Qwen/Qwen2.5:7B", "Org/Name", "qwen3", "a b"])
async def test_ids_go_out_as_one_segment_in_the_balancers_own_spelling(
    make_balancer: MakeBalancer, make_llmlb: MakeLlmlb, model: str
) -> None:
    name = store_name(model)
    balancer = await make_balancer(BalancedModel(name, {"model.gguf": BYTES}))
    assert (await make_llmlb(balancer.url).listing(ask("org/name", model=model))).files
    [asked] = [seen.path for seen in balancer.ledger.recent]
    assert asked == f"/api/models/registry/{name.replace('/', '%2F')}/manifest.json"


async def test_the_embedded_balancer_refuses_what_the_true_one_refuses(make_balancer: MakeBalancer, http: Any) -> None:
    balancer = await make_balancer(qwen3(), key=KEY)
    base, auth = f"{balancer.url}/v0/models", f"Bearer {KEY}"
    for path, status in {
        "/registry/Qwen3/manifest.json": 400,
        "/registry/qwen3:7b/manifest.json": 400,
        "/registry/qwen%2F..%2Fx/manifest.json": 400,
        "/registry/org/name/manifest.json": 404,
        "/registry/other/manifest.json": 404,
        "/registry/qwen3/files/other": 404,
        "/registry/qwen3/files/model.gguf": 200,
        "/blob/qwen3": 200,
    }.items():
        answer = await http.get(base + path, auth)
        assert answer.status == status, path
        assert status == 200 or set(answer.json()) == {"error"}
        assert (await http.get(base + path)).status == 401
    assert (await http.head(f"{base}/blob/qwen3", auth)).status == 405
    assert (await http.probe(f"{base}/blob/qwen3", auth)).status == 200
    assert "Content-Length" not in (await http.get(f"{base}/registry/qwen3/files/model.gguf", auth)).headers
    assert (await http.get(f"{base}/blob/qwen3", auth)).headers["Content-Length"] == str(BYTES.size)


async def test_the_generation_that_answered_is_asked_first_from_then_on(
    make_balancer: MakeBalancer, make_llmlb: MakeLlmlb
) -> None:
    balancer = await make_balancer(qwen3(), generations=("v0",))
    source = make_llmlb(balancer.url)
    for _ in range(3):
        await source.listing(CATALOGED)
    await source.locate(CATALOGED, NAME)
    asked = [seen.path.split("/")[1] for seen in balancer.ledger.recent]
    assert asked == ["api", "v0", "v0", "v0", "v0"]
    balancer.options.generations = ("api",)  # it was updated
    assert (await source.listing(CATALOGED)).files


async def test_an_older_one_that_shows_a_page_for_unknown_routes_is_understood(
    serve: Serve, make_llmlb: MakeLlmlb
) -> None:
    async def balancer(request: web.Request) -> web.Response:
        if request.path.startswith("/v0/"):
            return web.json_response({"files": [{"name": "model.gguf"}]})
        return web.Response(text="<!DOCTYPE html><title>Dashboard</title>", content_type="text/html")

    assert (await make_llmlb(await serve(balancer)).listing(CATALOGED)).files


@pytest.mark.parametrize("generations", [("api",), ("v0",), ("api", "v0")])
@pytest.mark.parametrize("old_shape", [True, False])
async def test_both_shapes_and_generations_give_the_file_its_own_name(
    make_balancer: MakeBalancer, make_llmlb: MakeLlmlb, generations: tuple[str, ...], old_shape: bool
) -> None:
    balancer = await make_balancer(qwen3(), generations=generations, old_shape=old_shape)
    source = make_llmlb(balancer.url)
    listing = await source.listing(CATALOGED)
    assert [file.name for file in listing.files] == [NAME]
    location = await source.locate(CATALOGED, NAME)
    assert not location.ranges
    blob = "v0" in generations
    assert location.size == (BYTES.size if blob else None)  # the blob tells its length, the files do not
    assert http_of(location).url.startswith(balancer.url)


# -- which bytes ------------------------------------------------------------------------------------------------


async def found(source: LlmlbSource) -> Location:
    return await source.locate(CATALOGED, NAME)


async def test_a_url_elsewhere_comes_first_and_one_at_the_hub_last(
    serve: Serve, make_balancer: MakeBalancer, make_llmlb: MakeLlmlb
) -> None:
    async def cdn(request: web.Request) -> web.Response:
        assert "Authorization" not in request.headers
        return web.Response(status=206, body=b"G", headers={"Content-Range": f"bytes 0-0/{BYTES.size}"})

    url = hub_url(await serve(cdn), REPO, NAME)
    balancer = await make_balancer(qwen3(urls={"model.gguf": url}), key=KEY)
    source = make_llmlb(balancer.url, key=KEY)
    location = await found(source)
    assert (http_of(location).url, location.ranges, location.size) == (url, True, BYTES.size)
    assert not http_of(location).headers
    beside = make_llmlb(balancer.url.replace("127.0.0.1", "localhost"), key=KEY, hub=url)
    assert http_of(await found(beside)).url.endswith("/v0/models/blob/qwen3")
    balancer.options.serves_bytes = False
    assert http_of(await found(beside)).url == url


async def test_a_host_that_cannot_be_reached_costs_one_try(make_balancer: MakeBalancer, make_llmlb: MakeLlmlb) -> None:
    urls = {f"{n}.json": hub_url(DEAD, REPO, f"{n}.json") for n in range(5)}
    balancer = await make_balancer(BalancedModel("qwen3", dict.fromkeys(urls, HubFile(b"{}")), urls=urls))
    source = make_llmlb(balancer.url)
    for name in urls:
        location = await source.locate(ask(REPO, model="qwen3"), SafeName(name))
        assert http_of(location).url.startswith(balancer.url)
    assert [breaker.is_open for breaker in source._breakers.values()] == [True]


async def test_without_any_bytes_the_error_says_what_was_answered(
    make_balancer: MakeBalancer, make_llmlb: MakeLlmlb
) -> None:
    urls = {"model.gguf": hub_url(DEAD, REPO, NAME)}
    balancer = await make_balancer(qwen3(urls=urls), serves_bytes=False)
    with pytest.raises(WantdError) as caught:
        await found(make_llmlb(balancer.url, hub=DEAD))
    assert caught.value.code is Code.PROXY_UNREACHABLE  # the one thing that time may mend
    assert caught.value.retryable


async def test_optional_files_that_are_not_there_are_left_out(
    make_balancer: MakeBalancer, make_llmlb: MakeLlmlb
) -> None:
    files = {"config.json": HubFile(b"{}"), "extra.json": HubFile(b"{}")}
    extra = {name: {"optional": True} for name in ("extra.json", "gone.json")}
    balancer = await make_balancer(BalancedModel("org/name", files, extra=extra))
    listing = await make_llmlb(balancer.url).listing(ask("org/name"))
    assert [file.name for file in listing.files] == ["config.json", "extra.json"]


# -- what a manifest says ---------------------------------------------------------------------------------------


def test_the_highest_priority_comes_first() -> None:
    files = [{"name": "a", "priority": -5}, {"name": "b"}, {"name": "c", "priority": 10, "runtimes": ["llama_cpp"]}]
    assert entries(files) == [("c", "c"), ("b", "b"), ("a", "a")]


def test_a_renamed_file_gets_its_own_name_back_only_where_that_is_certain() -> None:
    model = {"name": "model.gguf"}
    assert entries([model]) == [("model.gguf", NAME)]
    assert entries([model], quantization="q4_k_m") == [("model.gguf", NAME)]
    assert entries([model], quantization="Q8_0") == [("model.gguf", "model.gguf")]
    assert entries([model, {"name": "other.gguf"}]) == [("model.gguf", "model.gguf"), ("other.gguf", "other.gguf")]
    assert entries([model, {"name": "mmproj-f16.gguf"}])[0] == ("model.gguf", NAME)
    assert entries([model], ask(REPO, model="qwen3")) == [("model.gguf", "model.gguf")]
    two = ask(REPO, model="qwen3", names=(NAME, SafeName("b.gguf")))
    assert entries([model], two) == [("model.gguf", "model.gguf")]


def test_a_quant_is_served_only_by_a_manifest_that_says_it_is_one() -> None:
    query = ask(REPO, model="qwen3", quant="q8_0")
    assert entries([{"name": "model.gguf"}], query, quantization="Q8_0") == [("model.gguf", "qwen3-Q8_0.gguf")]
    assert entries([{"name": "model.gguf"}], query, quantization="Q4_K_M") == [("model.gguf", "model.gguf")]
    assert entries([{"name": "model.gguf"}], query) == [("model.gguf", "model.gguf")]


def test_the_url_tells_name_repository_and_revision() -> None:
    mine = {"name": "model.gguf", "url": hub_url("https://huggingface.co", REPO, NAME)}
    others = {"name": "x.gguf", "url": hub_url("https://huggingface.co", "other/repo", "x.gguf")}
    assert entries([mine, others], ask(REPO.upper(), model="qwen3")) == [("model.gguf", NAME)]
    pinned = {"name": "model.gguf", "url": hub_url("https://huggingface.co", REPO, NAME, "c" * 40)}
    manifest = parse_manifest({"files": [pinned]})
    assert manifest.commit(CATALOGED) == "c" * 40
    for revision, served in (("main", 1), ("c" * 40, 1), ("dev", 0), ("d" * 40, 0)):
        assert len(manifest.files_for(ask(REPO, revision, model="qwen3"))) == served
    branch = {"name": "model.gguf", "url": hub_url("https://huggingface.co", REPO, NAME, "dev")}
    assert [bool(entries([branch], ask(REPO, revision))) for revision in ("main", "dev")] == [False, True]


def test_a_file_that_stands_there_twice_is_one() -> None:
    url = hub_url("https://huggingface.co", REPO, NAME)
    for twice in (
        [{"name": "model.gguf", "url": url}, {"name": NAME, "url": url}],
        [{"name": "model.gguf", "digest": "a" * 64}, {"name": NAME, "digest": "sha256:" + "A" * 64}],
    ):
        assert [name for _, name in entries(twice)] == [NAME]


@pytest.mark.parametrize(
    "value",
    [
        None, [], "x", {}, {"files": {}}, {"files": ["x"]}, {"files": [{}]}, {"files": [{"name": 5}]},
        {"files": [{"name": "x", "url": 5}]}, {"files": [{"name": "x", "digest": "abc"}]},
        {"files": [{"name": "x", "digest": 5}]}, {"files": [{"name": "x", "size": -1}]},
        {"files": [{"name": "x", "size": 1.5}]}, {"files": [{"name": "x", "runtimes": "llama"}]},
        {"files": [{"name": "x", "runtimes": [5]}]}, {"files": [{"name": "x", "optional": "no"}]},
        {"files": [{"name": "x", "priority": "high"}]}, {"files": [{"name": "x"}] * 10_001},
    ],
)  # fmt: skip
def test_a_manifest_that_makes_no_sense_is_refused(value: Any) -> None:
    with pytest.raises(WantdError) as caught:
        parse_manifest(value)
    assert (caught.value.code, caught.value.retryable) == (Code.HUB_PROTOCOL, False)


@pytest.mark.parametrize(
    "files",
    [
        [{"name": "../x"}],
        [{"name": "/etc/passwd"}],
        [{"name": "x", "url": f"https://h.example/{REPO}/resolve/main/..%2F..%2Fx"}],
        [{"name": "a"}, {"name": "A"}],
        [{"name": "a"}, {"name": "a/b"}],
    ],
)
def test_names_that_could_do_harm_are_refused(files: list[dict[str, Any]]) -> None:
    with pytest.raises(WantdError) as caught:
        entries(files)
    assert caught.value.code is Code.FORBIDDEN_PATH


@pytest.mark.parametrize("url", ["ftp://h/x", "http://user:pass@h/x", "http://h/\x00", "http://169.254.169.254/x"])
async def test_a_url_that_leads_where_nobody_should_go_is_not_followed(
    make_balancer: MakeBalancer, make_llmlb: MakeLlmlb, url: str
) -> None:
    balancer = await make_balancer(BalancedModel("qwen3", {}, urls={"x": url}, extra={"x": {}}))
    with pytest.raises(WantdError):
        await make_llmlb(balancer.url).locate(ask(REPO, model="qwen3"), SafeName("x"))


# -- the key ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "said"), [(None, "requires a key"), ("sk_wrong", "refused the key")])
async def test_a_missing_and_a_wrong_key_are_told_apart(
    make_balancer: MakeBalancer, make_llmlb: MakeLlmlb, key: str | None, said: str
) -> None:
    balancer = await make_balancer(qwen3(), key=KEY)
    with pytest.raises(WantdError) as caught:
        await make_llmlb(balancer.url, key=key).listing(CATALOGED)
    assert caught.value.code is Code.UNAUTHORIZED
    assert said in caught.value.hint
    assert "LLM_RUNTIME_API_KEY" in caught.value.hint
    assert (await make_llmlb(balancer.url, key=KEY).listing(CATALOGED)).files


@pytest.mark.parametrize("status", [400, 401, 404, 418, 429, 500, 502])
async def test_no_error_or_repr_shows_the_key_even_when_the_balancer_sends_it_back(
    serve: Serve, make_llmlb: MakeLlmlb, status: int
) -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.json_response({"error": f"you sent {request.headers.get('Authorization')}"}, status=status)

    source = make_llmlb(await serve(echo), key=KEY)
    with pytest.raises(WantdError) as caught:
        await source.listing(CATALOGED)
    assert KEY not in f"{caught.value!r} {caught.value.to_json()} {source!r}"
    said = "rate limited by the load balancer" if status == 429 else f"answered {status}"
    assert said in caught.value.message


async def test_a_key_that_cannot_be_one_is_said_before_it_is_sent(
    make_balancer: MakeBalancer, make_llmlb: MakeLlmlb
) -> None:
    balancer = await make_balancer(qwen3())
    with pytest.raises(WantdError) as caught:
        await make_llmlb(balancer.url, key="two words").listing(CATALOGED)
    assert "two words" not in str(caught.value)
    assert not balancer.ledger.recent
