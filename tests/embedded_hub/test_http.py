"""What the Hub's interface promises on the wire, beyond what the official client happens to ask for."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import aiohttp
import pytest

from agent.embedded_hub.access import TOKEN_GRANTED, TOKEN_PLAIN
from agent.embedded_hub.ledger import token_hash
from agent.embedded_hub.repo import Repo
from agent.embedded_hub.server import EmbeddedHub

QWEN, WEIGHTS = "Qwen/Qwen3-0.6B", "model.safetensors"


def content(hub: EmbeddedHub, repo: str, name: str) -> bytes:
    held = hub.repos[repo]
    return b"".join(held.commits[held.refs["main"]][name].chunks())


async def locate(hub: EmbeddedHub, http: aiohttp.ClientSession, repo: str = QWEN, name: str = WEIGHTS) -> str:
    async with http.get(f"{hub.endpoint}/{repo}/resolve/main/{name}", allow_redirects=False) as answer:
        return answer.headers["Location"]


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_an_lfs_file_is_redirected_to_the_other_host_with_its_hash_and_size(
    hub: EmbeddedHub, http: aiohttp.ClientSession, method: str
) -> None:
    data = content(hub, QWEN, WEIGHTS)
    url = f"{hub.endpoint}/{QWEN}/resolve/main/{WEIGHTS}"
    async with http.request(method, url, allow_redirects=False) as answer:
        assert answer.status == 302
        assert answer.headers["Location"].startswith("http://localhost:")
        assert answer.headers["X-Linked-Etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
        assert answer.headers["X-Linked-Size"] == str(len(data))
        assert answer.headers["X-Repo-Commit"] == hub.repos[QWEN].refs["main"]
        assert int(answer.headers["Content-Length"]) != len(data)
        location = answer.headers["Location"]
    async with http.get(location) as answer:
        assert await answer.read() == data
        assert hashlib.sha256(data).hexdigest() not in answer.headers["ETag"]


async def test_a_plain_file_is_redirected_relatively_and_carries_its_blob_id(
    hub: EmbeddedHub, http: aiohttp.ClientSession
) -> None:
    data = content(hub, QWEN, "config.json")
    location = await locate(hub, http, name="config.json")
    assert location.startswith(f"/api/resolve-cache/models/{QWEN}/{hub.repos[QWEN].refs['main']}/config.json?")
    async with http.get(hub.endpoint + location) as answer:
        assert await answer.read() == data
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        assert answer.headers["ETag"] == f'"{blob}"'
        assert answer.content_length == len(data)


async def test_small_text_comes_gzipped_and_without_a_length_unless_identity_is_asked_for(
    hub: EmbeddedHub, http: aiohttp.ClientSession
) -> None:
    url = hub.endpoint + await locate(hub, http, name="vocab.json")
    async with http.get(url, headers={"Accept-Encoding": "gzip, deflate"}) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.content_length is None
        assert gzip.decompress(await answer.read()) == content(hub, QWEN, "vocab.json")


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
    ],
)
@pytest.mark.parametrize("on_disk", [False, True])
async def test_ranges_are_answered_as_rfc_9110_has_them(
    hub: EmbeddedHub, http: aiohttp.ClientSession, tmp_path: Path, asked: str, status: int, start: int,
    stop: int | None, on_disk: bool,
) -> None:  # fmt: skip
    data = content(hub, QWEN, WEIGHTS)
    if on_disk:
        (tmp_path / WEIGHTS).write_bytes(data)
        hub.add(Repo.from_directory(QWEN, str(tmp_path)))
    async with http.get(await locate(hub, http), headers={"Range": asked}) as answer:
        body = await answer.read()
        assert answer.status == status
        assert body == data[start:stop]
        if status == 206:
            begin = start % len(data)
            assert answer.headers["Content-Range"] == f"bytes {begin}-{begin + len(body) - 1}/{len(data)}"
        if status == 416:
            assert answer.headers["Content-Range"] == f"bytes */{len(data)}"


async def test_a_tree_comes_in_pages_that_together_are_the_whole(hub: EmbeddedHub, http: aiohttp.ClientSession) -> None:
    url: str | None = f"{hub.endpoint}/api/models/wantd/many/tree/main?recursive=true&expand=false"
    pages: list[list[str]] = []
    while url:
        async with http.get(url) as answer:
            pages.append([entry["path"] for entry in await answer.json() if entry["type"] == "file"])
            link = answer.links.get("next")
            url = str(link["url"]) if link else None
            assert url is None or url.startswith(hub.endpoint)
    assert len(pages) == 3
    assert sorted(name for page in pages for name in page) == sorted(
        hub.repos["wantd/many"].commits[hub.repos["wantd/many"].refs["main"]]
    )


async def test_metadata_is_the_same_by_revision_tree_and_paths(hub: EmbeddedHub, http: aiohttp.ClientSession) -> None:
    api = f"{hub.endpoint}/api/models/{QWEN}"
    async with http.get(f"{api}/revision/main?blobs=true") as answer:
        siblings = (await answer.json())["siblings"]
    async with http.get(f"{api}/tree/main?recursive=true") as answer:
        tree = await answer.json()
    names = [entry["path"] for entry in tree]
    async with http.post(f"{api}/paths-info/main", json={"paths": names}) as answer:
        assert await answer.json() == tree
    async with http.post(f"{api}/paths-info/main", data=[("paths", name) for name in names]) as answer:
        assert await answer.json() == tree
    by_tree = {entry["path"]: (entry["size"], entry["oid"], entry.get("lfs", {}).get("oid")) for entry in tree}
    assert by_tree == {s["rfilename"]: (s["size"], s["blobId"], s.get("lfs", {}).get("sha256")) for s in siblings}
    async with http.head(api) as answer:
        assert answer.status == 200
        assert await answer.read() == b""


async def test_a_signed_url_expires_and_cannot_be_forged(hub: EmbeddedHub, http: aiohttp.ClientSession) -> None:
    url = await locate(hub, http)
    for bad in (url.partition("?")[0], url.replace("Signature=", "Signature=0"), url.replace("Expires=", "Expires=1")):
        async with http.get(bad) as answer:
            assert answer.status == 403
    async with http.get(url) as answer:
        assert answer.status == 200
    hub.signer.expire_all()
    async with http.get(url) as answer:
        assert answer.status == 403
    hub.configure(url_lifetime_s=0)
    async with http.get(await locate(hub, http)) as answer:
        assert answer.status == 403
    hub.configure(url_lifetime_s=60)
    async with http.get(await locate(hub, http)) as answer:
        assert answer.status == 200


async def test_a_token_that_reaches_the_cdn_is_refused_and_remembered(
    hub: EmbeddedHub, http: aiohttp.ClientSession
) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN_PLAIN}"}
    async with http.get(await locate(hub, http), headers=bearer) as answer:
        assert answer.status == 400
        assert "Only one auth mechanism allowed" in await answer.text()
    assert hub.ledger.seen_tokens["cdn"] == {token_hash(TOKEN_PLAIN)}
    assert TOKEN_PLAIN not in json.dumps(hub.ledger.to_json())


@pytest.mark.parametrize(
    ("path", "token", "status", "code"),
    [
        ("/api/models/no/such", None, 401, "RepoNotFound"),
        ("/api/models/no/such", TOKEN_PLAIN, 404, "RepoNotFound"),
        ("/api/models/wantd/private", TOKEN_PLAIN, 404, "RepoNotFound"),
        ("/wantd/gated/resolve/main/README.md", TOKEN_PLAIN, 403, "GatedRepo"),
        ("/wantd/gated/resolve/main/README.md", TOKEN_GRANTED, 307, None),
        ("/api/models/wantd/gated-closed/revision/main", TOKEN_PLAIN, 403, "GatedRepo"),
        ("/api/models/wantd/gated-closed/revision/main", None, 401, "RepoNotFound"),
        (f"/api/models/{QWEN}/revision/nope", None, 404, "RevisionNotFound"),
        (f"/{QWEN}/resolve/main/nope.txt", None, 404, "EntryNotFound"),
        (f"/api/models/{QWEN}/tree/main/nope", None, 404, "EntryNotFound"),
        (f"/api/models/{QWEN}", "hf_nobodys", 401, None),
        ("/api/models/wantd/disabled", None, 403, None),
    ],
)
async def test_every_error_has_the_status_and_code_that_clients_know(
    hub: EmbeddedHub, http: aiohttp.ClientSession, path: str, token: str | None, status: int, code: str | None
) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with http.get(hub.endpoint + path, headers=headers, allow_redirects=False) as answer:
        assert (answer.status, answer.headers.get("X-Error-Code")) == (status, code)
        assert answer.headers["X-Request-Id"]
        assert '"api"' in answer.headers["RateLimit"] or '"resolvers"' in answer.headers["RateLimit"]
        if status >= 400:
            assert (await answer.json())["error"] == answer.headers["X-Error-Message"]


async def test_a_small_budget_is_counted_down_and_then_refused(hub: EmbeddedHub, http: aiohttp.ClientSession) -> None:
    hub.configure(api_quota=2, window_s=300)
    told = []
    for _ in range(3):
        async with http.get(f"{hub.endpoint}/api/models/{QWEN}") as answer:
            told.append((answer.status, answer.headers["RateLimit"].split(";")[1], answer.headers.get("Retry-After")))
    assert [status for status, _, _ in told] == [200, 200, 429]
    assert [left for _, left, _ in told] == ["r=1", "r=0", "r=0"]
    assert 0 < int(told[2][2] or 0) <= 300
    async with http.head(f"{hub.endpoint}/{QWEN}/resolve/main/{WEIGHTS}", allow_redirects=False) as answer:
        assert answer.status == 302
    bearer = {"Authorization": f"Bearer {TOKEN_PLAIN}"}
    async with http.get(f"{hub.endpoint}/api/models/{QWEN}", headers=bearer) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "path", ["/api/models/{}/revision/refs%2Fpr%2F1", "/{}/resolve/main/README.md?download=true", "/api/models/{}"]
)
async def test_a_former_or_ill_spelt_name_is_redirected_relatively(
    hub: EmbeddedHub, http: aiohttp.ClientSession, path: str
) -> None:
    for name in ("Qwen/Qwen2.5-7B-Chat-GGUF", "qwen/qwen2.5-7b-instruct-gguf"):
        async with http.get(hub.endpoint + path.format(name), allow_redirects=False) as answer:
            assert answer.status == 307
            assert answer.headers["Location"] == path.format("Qwen/Qwen2.5-7B-Instruct-GGUF")


async def test_bytes_and_requests_are_counted_by_file(hub: EmbeddedHub, http: aiohttp.ClientSession) -> None:
    url = await locate(hub, http)
    for _ in range(2):
        async with http.get(url, headers={"Range": "bytes=10-29"}) as answer:
            await answer.read()
    assert hub.ledger.bytes_sent == {(QWEN, WEIGHTS): 40}
    assert hub.ledger.requests == {(QWEN, WEIGHTS): 2}
    last = hub.ledger.recent[-1]
    assert (last.listener, last.method, last.range, last.status, last.authorized) == (
        "cdn", "GET", "bytes=10-29", 206, False
    )  # fmt: skip
    assert "Signature" not in last.path


async def test_a_file_too_large_for_one_answer_is_sent_by_ranges_only(
    hub: EmbeddedHub, http: aiohttp.ClientSession
) -> None:
    hub.configure(max_plain_bytes=1000)
    url = await locate(hub, http)
    async with http.get(url) as answer:
        assert answer.status == 400
    async with http.get(url, headers={"Range": "bytes=0-99"}) as answer:
        assert answer.status == 206
