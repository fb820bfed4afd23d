"""What every source promises (`core.ports.Source`), held over each implementation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from agent.core.names import RepoId, SafeName, store_name
from agent.core.ports import Source
from agent.core.remote import Location
from agent.embedded_hub.repo import Repo
from agent.errors import Code, WantdError
from agent.sources.chain import Chain
from agent.sources.host_caches import HostCaches
from agent.sources.hub_cache import HubCacheSource, LocalFile
from tests.hub.access import TOKEN_GRANTED, TOKEN_PLAIN, ClosedRepo
from tests.hub.balancer import BalancedModel, EmbeddedBalancer
from tests.hub.faults import Faults
from tests.hub.server import InstrumentedHub
from tests.hub.standard import PARTIAL
from tests.sources.asking import ask, http_of
from tests.sources.cached import write_cache

DEAD = "http://127.0.0.1:9"  # the discard port: nothing listens

GGUF = RepoId("bartowski/Qwen_Qwen3-0.6B-GGUF")
MODEL = SafeName("Qwen_Qwen3-0.6B-Q4_K_M.gguf")
README = SafeName("README.md")

Connect = Callable[..., Source]

WITH_TOKEN = ["hub", "mirror", "chain of one", "chain behind a dead Hub"]
OVER_HTTP = [*WITH_TOKEN, "proxy that is a mirror"]
HUB_LIKE = [*OVER_HTTP, "the Hub's cache", "the Hub's cache behind a dead Hub"]
BALANCERS = [
    "llmlb",
    "llmlb of /v0",
    "llmlb without hashes",
    "proxy that is llmlb",
    "llmlb behind a dead Hub",
]


@pytest.fixture
async def balancer(hub: InstrumentedHub, make_balancer: Callable[..., Awaitable[EmbeddedBalancer]]) -> EmbeddedBalancer:
    """A balancer that has what the Hub has."""
    return await make_balancer(*map(balanced, hub.repos.values()))


def is_closed(repo: Repo) -> bool:
    """Whether strangers may not even list it."""
    return repo.private or repo.disabled or isinstance(repo, ClosedRepo)


def balanced(repo: Repo, hashes: bool = True) -> BalancedModel:
    files = repo.commits[repo.refs["main"]]
    digests = {name: {"digest": file.sha256} for name, file in files.items() if hashes}
    return BalancedModel(store_name(repo.id), files, extra=digests)


@pytest.fixture
def connect(
    request: pytest.FixtureRequest,
    hub: InstrumentedHub,
    balancer: EmbeddedBalancer,
    make_source: Connect,
    make_llmlb: Connect,
    make_proxy: Connect,
    tmp_path: Path,
) -> Connect:
    """`connect(token)`: the implementation, with the embedded Hub's models behind it."""
    if "cache" in request.param:
        for repo in hub.repos.values():
            if not is_closed(repo):
                write_cache(tmp_path / "hub", repo)
    if "/v0" in request.param:
        balancer.options.generations = ("v0",)
    if "without" in request.param:
        balancer.models = {store_name(repo.id): balanced(repo, False) for repo in hub.repos.values()}

    def cache() -> Source:
        return HubCacheSource(HostCaches(lambda: [str(tmp_path / "hub")], {}, list))

    def make(token: str | None = None) -> Source:
        match request.param:
            case "hub":
                return make_source(hub.endpoint, token=token)
            case "mirror":
                return make_source(hub.endpoint, token=token, name="mirror")
            case "proxy that is a mirror":
                return make_proxy(hub.endpoint)
            case "chain of one":
                return Chain([make_source(hub.endpoint, token=token)])
            case "chain behind a dead Hub":
                return Chain([make_source(DEAD), make_source(hub.endpoint, token=token, name="mirror")])
            case "proxy that is llmlb":
                return make_proxy(balancer.url)
            case "the Hub's cache":
                return cache()
            case "the Hub's cache behind a dead Hub":
                return Chain([make_source(DEAD)], stand_in=cache())
            case "llmlb behind a dead Hub":
                return Chain([make_source(DEAD), make_llmlb(balancer.url)])
            case _:
                return make_llmlb(balancer.url)

    return make


every_source = pytest.mark.parametrize("connect", HUB_LIKE + BALANCERS, indirect=True)
every_source_over_http = pytest.mark.parametrize("connect", OVER_HTTP + BALANCERS, indirect=True)
every_hub = pytest.mark.parametrize("connect", HUB_LIKE, indirect=True)
every_hub_with_a_token = pytest.mark.parametrize("connect", WITH_TOKEN, indirect=True)
every_balancer = pytest.mark.parametrize("connect", BALANCERS, indirect=True)


async def read(location: Location) -> bytes:
    """The bytes behind a location, as the transfer engine asks: its headers, no redirect."""
    if isinstance(location.access, LocalFile):
        with open(location.access.file.path, "rb") as file:
            return file.read()
    async with (
        aiohttp.ClientSession() as session,
        session.get(http_of(location).url, headers=dict(http_of(location).headers), allow_redirects=False) as response,
    ):
        assert response.status == 200
        return await response.read()


@every_source
async def test_a_listing_tells_every_file_and_nothing_false(connect: Connect, hub: InstrumentedHub) -> None:
    source = connect()
    for repo in hub.repos.values():
        files = repo.commits[repo.refs["main"]]
        if is_closed(repo) or not files:
            continue
        listing = await source.listing(ask(repo.id))
        assert listing.repo == repo.id
        assert listing.commit in (repo.refs["main"], "main")
        assert {file.name for file in listing.files} == set(files)
        for file in listing.files:
            assert file.size in (None, files[file.name].size)
            assert file.sha256 in (None, files[file.name].sha256)
            assert file.git_sha1 in (None, files[file.name].git_sha1)


@every_hub
async def test_a_hub_tells_commit_sizes_and_hashes(connect: Connect, hub: InstrumentedHub) -> None:
    source = connect()
    for repo in hub.repos.values():
        if is_closed(repo):
            continue
        listing = await source.listing(ask(repo.id, "main"))
        files = repo.commits[repo.refs["main"]]
        assert listing.commit == repo.refs["main"]
        assert {file.name: (file.size, file.sha256 or file.git_sha1) for file in listing.files} == {
            name: (file.size, file.etag) for name, file in files.items()
        }


@every_hub
@pytest.mark.parametrize("revision", ["main", "v1.0", "dev", "refs/pr/1"])
async def test_a_revision_is_named_by_its_commit(connect: Connect, hub: InstrumentedHub, revision: str) -> None:
    repo = hub.repos["wantd/revisions"]
    source = connect()
    commit = (await source.listing(ask(repo.id, revision))).commit
    assert commit == repo.find(revision)
    assert (await source.listing(ask(repo.id, commit))).commit == commit


@every_source
@pytest.mark.parametrize("listed", [True, False])
async def test_every_location_gives_the_files_bytes(connect: Connect, hub: InstrumentedHub, listed: bool) -> None:
    for repo_id in (GGUF, RepoId("wantd/names"), RepoId("wantd/revisions")):
        repo, source = hub.repos[repo_id], connect()
        commit = repo.refs["main"]
        if listed:
            await source.listing(ask(repo_id, "main"))
        for name, file in repo.commits[commit].items():
            location = await source.locate(ask(repo_id, commit), SafeName(name))
            assert location.size in (None, file.size)
            assert location.etag in (None, file.etag, file.sha256)
            assert location.sha256 in (None, file.sha256)
            assert await read(location) == b"".join(file.chunks())


@every_hub
async def test_a_location_of_a_hub_announces_what_the_listing_said(connect: Connect, hub: InstrumentedHub) -> None:
    source, repo = connect(), hub.repos[GGUF]
    commit = repo.refs["main"]
    for name, file in repo.commits[commit].items():
        location = await source.locate(ask(GGUF, commit), SafeName(name))
        assert (location.size, location.etag) == (file.size, file.etag)
        assert location.sha256 == (file.sha256 if file.lfs else None)


@every_source
@pytest.mark.parametrize("name", [MODEL, README])
async def test_a_location_that_failed_is_replaced_by_one_that_works(
    connect: Connect, hub: InstrumentedHub, name: SafeName
) -> None:
    source = connect()
    commit = (await source.listing(ask(GGUF, "main"))).commit
    await source.locate(ask(GGUF, commit), name)
    hub.expire_urls()
    failed = WantdError(Code.HUB_UNREACHABLE, "it answered 403", "try again")
    location = await source.locate(ask(GGUF, commit), name, failed)
    file = hub.repos[GGUF].commits[hub.repos[GGUF].refs["main"]][name]
    assert await read(location) == b"".join(file.chunks())


@every_source
async def test_what_is_not_there_is_a_definite_answer_unless_the_hub_may_have_it(
    connect: Connect, request: pytest.FixtureRequest
) -> None:
    source = connect()
    for asking in (
        source.listing(ask("wantd/missing")),
        source.locate(ask("wantd/missing", "0" * 40), README),
        source.locate(ask(GGUF, "main"), SafeName("missing.gguf")),
    ):
        with pytest.raises(WantdError) as caught:
            await asking
        assert caught.value.retryable is ("dead" in request.node.callspec.id)
        assert caught.value.hint
        assert caught.value.model in ("wantd/missing", GGUF)


@every_balancer
async def test_a_balancer_does_not_pass_off_its_version_for_another(connect: Connect) -> None:
    for revision in ("v1.0", "0" * 40):
        with pytest.raises(WantdError):
            await connect().listing(ask("wantd/revisions", revision))
    await connect().listing(ask("wantd/revisions", "0" * 40, bound=True))  # a hash will tell


@every_hub_with_a_token
@pytest.mark.parametrize(
    ("repo", "revision", "token", "code"),
    [
        ("wantd/missing", "main", None, Code.UNAUTHORIZED),
        ("wantd/missing", "main", TOKEN_PLAIN, Code.MODEL_NOT_FOUND),
        ("wantd/private", "main", None, Code.UNAUTHORIZED),
        ("wantd/private", "main", TOKEN_PLAIN, Code.MODEL_NOT_FOUND),
        ("wantd/gated-closed", "main", None, Code.UNAUTHORIZED),
        ("wantd/gated-closed", "main", TOKEN_PLAIN, Code.GATED),
        ("wantd/disabled", "main", TOKEN_GRANTED, Code.MODEL_NOT_FOUND),
        ("wantd/revisions", "nowhere", None, Code.REVISION_NOT_FOUND),
        ("wantd/revisions", "0" * 40, None, Code.REVISION_NOT_FOUND),
        ("wantd/revisions", "main", "hf_wrong", Code.TOKEN_INVALID),
    ],
)
async def test_a_definite_answer_has_its_code_and_a_hint(
    connect: Connect, request: pytest.FixtureRequest, repo: str, revision: str, token: str | None, code: Code
) -> None:
    with pytest.raises(WantdError) as caught:
        await connect(token).listing(ask(repo, revision))
    if "dead" in request.node.callspec.id:  # the Hub itself may know the model: nothing is settled
        assert caught.value.retryable
        assert "mirror: " in caught.value.message
    else:
        assert (caught.value.code, caught.value.retryable) == (code, False)
    assert caught.value.hint
    assert caught.value.model == repo


@every_hub_with_a_token
@pytest.mark.parametrize(
    ("repo", "name", "token", "code"),
    [
        (GGUF, "missing.gguf", None, Code.FILE_NOT_FOUND),
        (RepoId("wantd/gated"), README, None, Code.GATED),
        (RepoId("wantd/gated"), README, TOKEN_PLAIN, Code.GATED),
        (RepoId("wantd/gated"), "model-Q4_K_M.gguf", TOKEN_PLAIN, Code.GATED),
        (RepoId("wantd/gated"), README, "hf_wrong", Code.GATED),  # as the Hub does not tell it from no token
        (RepoId(PARTIAL), SafeName("model-00002-of-00003.safetensors"), None, Code.FILE_NOT_FOUND),
    ],
)
@pytest.mark.parametrize("failed", [None, WantdError(Code.STALLED, "no byte for 30 s", "wait")])
async def test_a_definite_answer_about_a_file_too(
    connect: Connect,
    request: pytest.FixtureRequest,
    hub: InstrumentedHub,
    repo: RepoId,
    name: str,
    token: str | None,
    code: Code,
    failed: WantdError | None,
) -> None:
    with pytest.raises(WantdError) as caught:
        await connect(token).locate(ask(repo, hub.repos[repo].refs["main"]), SafeName(name), failed)
    if "dead" in request.node.callspec.id:
        assert caught.value.retryable
    else:
        assert (caught.value.code, caught.value.retryable) == (code, False)
    assert (caught.value.model, caught.value.file) == (repo, name)


@every_hub_with_a_token
async def test_a_token_that_was_granted_access_opens_a_gated_model(connect: Connect, hub: InstrumentedHub) -> None:
    source = connect(TOKEN_GRANTED)
    listing = await source.listing(ask("wantd/gated", "main"))
    for file in listing.files:
        location = await source.locate(ask(listing.repo, listing.commit), file.name)
        assert len(await read(location)) == file.size


@every_source_over_http
@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_what_time_may_mend_is_retryable(
    connect: Connect, hub: InstrumentedHub, balancer: EmbeddedBalancer, status: int
) -> None:
    hub.faults.set("hub/*", Faults(status=status))
    balancer.faults.set("llmlb/*", Faults(status=status))
    source = connect()
    for asking in (source.listing(ask(GGUF, "main")), source.locate(ask(GGUF, "0" * 40), README)):
        with pytest.raises(WantdError) as caught:
            await asking
        assert caught.value.code in (Code.HUB_UNREACHABLE, Code.PROXY_UNREACHABLE)
        assert caught.value.retryable


@every_source_over_http
async def test_a_rate_limit_says_how_long(connect: Connect, hub: InstrumentedHub, balancer: EmbeddedBalancer) -> None:
    hub.faults.set("hub/*", Faults(status=429, retry_after="40"))
    balancer.faults.set("llmlb/*", Faults(status=429, retry_after="40"))
    source = connect()
    for _ in range(2):
        with pytest.raises(WantdError) as caught:
            await source.listing(ask(GGUF, "main"))
        assert caught.value.retryable
        assert caught.value.retry_after_s == pytest.approx(40, abs=5)
    assert len(hub.ledger.recent) + len(balancer.ledger.recent) == 1
