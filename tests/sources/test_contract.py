"""What every source promises (`services.ports.Source`), held over each implementation."""

from __future__ import annotations

from collections.abc import Callable

import aiohttp
import pytest

from agent.core.names import RepoId, SafeName
from agent.core.remote import Location
from agent.embedded_hub.access import TOKEN_GRANTED, TOKEN_PLAIN
from agent.embedded_hub.faults import Faults
from agent.embedded_hub.server import EmbeddedHub
from agent.errors import Code, WantdError
from agent.services.ports import Source
from agent.sources.chain import Chain

DEAD = "http://127.0.0.1:9"  # the discard port: nobody listens

GGUF = RepoId("bartowski/Qwen_Qwen3-0.6B-GGUF")
MODEL = SafeName("Qwen_Qwen3-0.6B-Q4_K_M.gguf")
README = SafeName("README.md")

Connect = Callable[..., Source]


@pytest.fixture(params=["hub", "mirror", "chain of one", "chain behind a dead Hub"])
def connect(request: pytest.FixtureRequest, hub: EmbeddedHub, make_source: Connect) -> Connect:
    """`connect(token)`: the implementation, with the embedded Hub's models behind it."""

    def make(token: str | None = None) -> Source:
        match request.param:
            case "hub":
                return make_source(hub.endpoint, token=token)
            case "mirror":
                return make_source(hub.endpoint, token=token, name="mirror")
            case "chain of one":
                return Chain([make_source(hub.endpoint, token=token)])
            case _:
                return Chain([make_source(DEAD), make_source(hub.endpoint, token=token, name="mirror")])

    return make


async def read(location: Location) -> bytes:
    """The bytes behind a location, as the transfer engine asks: its headers, no redirect."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(location.url, headers=dict(location.headers), allow_redirects=False) as response,
    ):
        assert response.status == 200
        return await response.read()


async def test_a_listing_tells_every_file_with_size_and_hash(connect: Connect, hub: EmbeddedHub) -> None:
    for repo in hub.repos.values():
        if repo.private or repo.disabled or not repo.open_listing:
            continue
        listing = await connect().listing(RepoId(repo.id), "main")
        files = repo.commits[repo.refs["main"]]
        assert listing.commit == repo.refs["main"]
        assert listing.repo == repo.id
        assert {file.name: (file.size, file.sha256 or file.git_sha1) for file in listing.files} == {
            name: (file.size, file.etag(name)) for name, file in files.items()
        }


@pytest.mark.parametrize("revision", ["main", "v1.0", "dev", "refs/pr/1"])
async def test_a_revision_is_named_by_its_commit(connect: Connect, hub: EmbeddedHub, revision: str) -> None:
    repo = hub.repos["wantd/revisions"]
    source = connect()
    commit = (await source.listing(RepoId(repo.id), revision)).commit
    assert commit == repo.refs[revision]
    assert (await source.listing(RepoId(repo.id), commit)).commit == commit


@pytest.mark.parametrize("listed", [True, False])
async def test_every_location_gives_the_files_bytes(connect: Connect, hub: EmbeddedHub, listed: bool) -> None:
    for repo_id in (GGUF, RepoId("wantd/names"), RepoId("wantd/revisions")):
        repo, source = hub.repos[repo_id], connect()
        commit = repo.refs["main"]
        if listed:
            await source.listing(repo_id, "main")
        for name, file in repo.commits[commit].items():
            location = await source.locate(repo_id, commit, SafeName(name))
            assert location.size == file.size
            assert location.etag == file.etag(name)
            assert location.sha256 == (file.sha256 if file.is_lfs(name) else None)
            assert await read(location) == b"".join(file.chunks())


@pytest.mark.parametrize("name", [MODEL, README])
async def test_a_location_that_failed_is_replaced_by_one_that_works(
    connect: Connect, hub: EmbeddedHub, name: SafeName
) -> None:
    source = connect()
    commit = (await source.listing(GGUF, "main")).commit
    await source.locate(GGUF, commit, name)
    hub.signer.expire_all()
    failed = WantdError(Code.HUB_UNREACHABLE, "it answered 403", "try again")
    location = await source.locate(GGUF, commit, name, failed)
    file = hub.repos[GGUF].commits[commit][name]
    assert (location.etag, location.size) == (file.etag(name), file.size)
    assert await read(location) == b"".join(file.chunks())


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
        await connect(token).listing(RepoId(repo), revision)
    if "dead" in request.node.callspec.id:  # the Hub itself may know the model: nothing is settled
        assert caught.value.retryable
        assert "mirror: " in caught.value.message
    else:
        assert (caught.value.code, caught.value.retryable) == (code, False)
    assert caught.value.hint
    assert caught.value.model == repo


@pytest.mark.parametrize(
    ("repo", "name", "token", "code"),
    [
        (GGUF, "missing.gguf", None, Code.FILE_NOT_FOUND),
        (RepoId("wantd/gated"), README, None, Code.GATED),
        (RepoId("wantd/gated"), README, TOKEN_PLAIN, Code.GATED),
        (RepoId("wantd/gated"), "model-Q4_K_M.gguf", TOKEN_PLAIN, Code.GATED),
        (RepoId("wantd/gated"), README, "hf_wrong", Code.TOKEN_INVALID),
    ],
)
@pytest.mark.parametrize("failed", [None, WantdError(Code.STALLED, "no byte for 30 s", "wait")])
async def test_a_definite_answer_about_a_file_too(
    connect: Connect,
    request: pytest.FixtureRequest,
    hub: EmbeddedHub,
    repo: RepoId,
    name: str,
    token: str | None,
    code: Code,
    failed: WantdError | None,
) -> None:
    with pytest.raises(WantdError) as caught:
        await connect(token).locate(repo, hub.repos[repo].refs["main"], SafeName(name), failed)
    if "dead" in request.node.callspec.id:
        assert caught.value.retryable
    else:
        assert (caught.value.code, caught.value.retryable) == (code, False)
    assert (caught.value.model, caught.value.file) == (repo, name)


async def test_a_token_that_was_granted_access_opens_a_gated_model(connect: Connect, hub: EmbeddedHub) -> None:
    source = connect(TOKEN_GRANTED)
    listing = await source.listing(RepoId("wantd/gated"), "main")
    for file in listing.files:
        location = await source.locate(listing.repo, listing.commit, file.name)
        assert len(await read(location)) == file.size


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_what_time_may_mend_is_retryable(connect: Connect, hub: EmbeddedHub, status: int) -> None:
    hub.faults.set("hub/*", Faults(status=status))
    source = connect()
    for asking in (source.listing(GGUF, "main"), source.locate(GGUF, "0" * 40, README)):
        with pytest.raises(WantdError) as caught:
            await asking
        assert (caught.value.code, caught.value.retryable) == (Code.HUB_UNREACHABLE, True)


async def test_a_rate_limit_says_how_long(connect: Connect, hub: EmbeddedHub) -> None:
    hub.faults.set("hub/*", Faults(status=429, retry_after="40"))
    source = connect()
    with pytest.raises(WantdError) as caught:
        await source.listing(GGUF, "main")
    assert caught.value.retryable
    assert caught.value.retry_after_s == pytest.approx(40, abs=5)
    with pytest.raises(WantdError):
        await source.listing(GGUF, "main")
    assert len(hub.ledger.recent) == 1
