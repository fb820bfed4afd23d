"""What the Hub says of repositories: files, trees, refs, and errors."""

from __future__ import annotations

import aiohttp
import pytest

from agent.embedded_hub.repo import Repo
from agent.embedded_hub.server import EmbeddedHub
from tests.embedded_hub.conftest import FILES, REPO

API = f"/api/models/{REPO}"


async def test_a_tree_comes_in_pages_that_together_are_the_whole(
    hub: EmbeddedHub, http: aiohttp.ClientSession, repo: Repo
) -> None:
    names = [f"d{number % 3}/f{number:02d}" for number in range(40)]
    repo.commit(dict.fromkeys(names, "x"))
    hub.routes.page_size = 20
    url: str | None = f"{hub.endpoint}{API}/tree/main?recursive=true&expand=false"
    pages: list[list[str]] = []
    while url:
        async with http.get(url) as response:
            pages.append([entry["path"] for entry in await response.json() if entry["type"] == "file"])
            link = response.links.get("next")
            url = str(link["url"]) if link else None
            assert url is None or url.startswith(hub.endpoint)
    assert len(pages) == 3
    assert sorted(name for page in pages for name in page) == sorted(names)


async def test_a_directory_is_listed_on_its_own(hub: EmbeddedHub, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{hub.endpoint}{API}/tree/main") as response:
        kinds = {entry["path"]: entry["type"] for entry in await response.json()}
    assert kinds == {"original": "directory"} | {name: "file" for name in FILES if "/" not in name}
    async with http.get(f"{hub.endpoint}{API}/tree/main/original") as response:
        assert {entry["path"] for entry in await response.json()} == {name for name in FILES if "/" in name}


async def test_metadata_is_the_same_by_revision_tree_and_paths(hub: EmbeddedHub, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{hub.endpoint}{API}/revision/main?blobs=true") as response:
        siblings = (await response.json())["siblings"]
    async with http.get(f"{hub.endpoint}{API}/tree/main?recursive=true") as response:
        tree = await response.json()
    names = [entry["path"] for entry in tree]
    async with http.post(f"{hub.endpoint}{API}/paths-info/main", json={"paths": names}) as response:
        assert await response.json() == tree
    async with http.post(f"{hub.endpoint}{API}/paths-info/main", data=[("paths", name) for name in names]) as response:
        assert await response.json() == tree
    files = [entry for entry in tree if entry["type"] == "file"]
    by_tree = {entry["path"]: (entry["size"], entry["oid"], entry.get("lfs", {}).get("oid")) for entry in files}
    assert by_tree == {s["rfilename"]: (s["size"], s["blobId"], s.get("lfs", {}).get("sha256")) for s in siblings}
    async with http.head(f"{hub.endpoint}{API}") as response:
        assert response.status == 200
        assert await response.read() == b""


async def test_refs_are_branches_tags_and_pull_requests(
    hub: EmbeddedHub, http: aiohttp.ClientSession, repo: Repo
) -> None:
    async with http.get(f"{hub.endpoint}{API}/refs") as response:
        assert await response.json() == {
            "branches": [
                {"name": name, "ref": f"refs/heads/{name}", "targetCommit": repo.refs[name]} for name in ("main", "dev")
            ],
            "tags": [{"name": "v1.0", "ref": "refs/tags/v1.0", "targetCommit": repo.refs["main"]}],
            "converts": [],
            "pullRequests": [{"name": "1", "ref": "refs/pr/1", "targetCommit": repo.refs["refs/pr/1"]}],
        }


@pytest.mark.parametrize(
    ("revision", "ref"),
    [
        ("main", "main"),
        ("refs%2Fheads%2Fdev", "dev"),
        ("v1.0", "main"),
        ("refs%2Fpr%2F1", "refs/pr/1"),
        ("refs/pr/1", "refs/pr/1"),
    ],
)
async def test_a_revision_is_a_branch_a_tag_a_ref_or_a_commit(
    hub: EmbeddedHub, http: aiohttp.ClientSession, repo: Repo, revision: str, ref: str
) -> None:
    commit = repo.refs[ref]
    for name in (revision, commit, commit[:9]):
        async with http.get(f"{hub.endpoint}{API}/revision/{name}") as response:
            assert (await response.json())["sha"] == response.headers["X-Repo-Commit"] == commit


@pytest.mark.parametrize(
    "path", ["/api/models/{}/revision/refs%2Fpr%2F1", "/{}/resolve/main/README.md?download=true", "/api/models/{}"]
)
@pytest.mark.parametrize("name", ["org/old-name", "ORG/Model"])
async def test_a_former_or_differently_spelt_name_is_redirected_relatively(
    hub: EmbeddedHub, http: aiohttp.ClientSession, path: str, name: str
) -> None:
    async with http.get(hub.endpoint + path.format(name), allow_redirects=False) as response:
        assert response.status == 307
        assert response.headers["Location"] == path.format(REPO)


async def test_a_name_without_an_organisation_is_served_too(hub: EmbeddedHub, http: aiohttp.ClientSession) -> None:
    hub.repos.add(Repo.of("gpt2", {"config.json": "{}"}))
    for path in (
        "/api/models/gpt2",
        "/api/models/gpt2/refs",
        "/api/models/gpt2/tree/main",
        "/gpt2/resolve/main/config.json",
    ):
        async with http.get(hub.endpoint + path) as response:
            assert response.status == 200, path


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/models/no/such", 404, "RepoNotFound"),
        ("/no/such/resolve/main/README.md", 404, "RepoNotFound"),
        (f"{API}/revision/nope", 404, "RevisionNotFound"),
        (f"{API}/revision/no%0D%0Ape", 404, "RevisionNotFound"),
        (f"{API}/tree/main/nope", 404, "EntryNotFound"),
        (f"{API}/tree/main?cursor=nope", 400, None),
        (f"/{REPO}/resolve/main/nope.txt", 404, "EntryNotFound"),
        ("/api/models/org/disabled", 403, None),
        ("/nothing/at/all", 404, None),
        (f"{API}/paths-info/main", 405, None),
    ],
)
async def test_every_error_has_the_status_code_and_message_that_clients_read(
    hub: EmbeddedHub, http: aiohttp.ClientSession, path: str, status: int, code: str | None
) -> None:
    hub.repos.add(Repo.of("org/disabled", {}, disabled=True))
    async with http.get(hub.endpoint + path, headers={"Authorization": "Bearer hf_x"}) as response:
        assert (response.status, response.headers.get("X-Error-Code")) == (status, code)
        assert (await response.json())["error"].replace("\r\n", "??") == response.headers["X-Error-Message"]
        assert response.headers["X-Request-Id"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"paths": 5}', b'{"paths": [5]}'])
async def test_a_body_that_names_no_paths_is_refused(
    hub: EmbeddedHub, http: aiohttp.ClientSession, body: bytes
) -> None:
    headers = {"Content-Type": "application/json"}
    async with http.post(f"{hub.endpoint}{API}/paths-info/main", data=body, headers=headers) as response:
        assert response.status == 400


@pytest.mark.parametrize("limit", ["0", "1", "²", "9" * 5000, "-1"])
async def test_a_limit_of_any_size_gives_a_page(hub: EmbeddedHub, http: aiohttp.ClientSession, limit: str) -> None:
    async with http.get(f"{hub.endpoint}{API}/tree/main", params={"limit": limit}) as response:
        assert response.status == 200
        assert len(await response.json()) in (1, 5)


async def test_strangers_are_not_told_whether_a_repository_is_missing_or_private(
    hub: EmbeddedHub, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{hub.endpoint}/api/models/no/such") as response:
        assert (response.status, response.headers["X-Error-Code"]) == (401, "RepoNotFound")
