"""Which files of other programs are found, by what, and which never are; and the Hub's cache as a source."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest

from agent.core.access import LocationExpired
from agent.core.names import RepoId, SafeName
from agent.core.retry import HOST_CACHES_S
from agent.embedded_hub.repo import Repo
from agent.embedded_hub.server import EmbeddedHub
from agent.errors import Code, WantdError
from agent.host_files import HostFile
from agent.sources.host_caches import AUTO, HostCaches, usual_places
from agent.sources.hub_cache import HubCacheSource, LocalFile, has_hub_cache
from tests.fakes import logged
from tests.sources.asking import ask

REPO = RepoId("org/name-GGUF")
NAME = SafeName("name-Q4_K_M.gguf")
DATA = b"GGUF weights" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()
GIT_SHA1 = hashlib.sha1(b"blob %d\0" % len(DATA) + DATA, usedforsecurity=False).hexdigest()
COMMIT = "1a2b3c4d5e6f7890abcdef1234567890abcdef12"
OTHER = "9" * 40


class Host:
    """A home with caches in it, and time that passes when the test says so."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.now = 0.0
        self.setting: str | list[str] = AUTO
        self.own: list[str] = []
        self.caches = HostCaches(lambda: self.setting, {"HOME": str(home)}, lambda: self.own, lambda: self.now)

    def put(self, path: str, data: bytes = DATA) -> Path:
        target = self.home / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return target

    def find(self, *, size: int | None = len(DATA), sha256: str | None = SHA256, git: str | None = None) -> list[str]:
        """Paths below the home of what is found."""
        found = self.caches.find(REPO, NAME, size, sha256, git)
        return [os.path.relpath(file.path, os.path.realpath(self.home)) for file in found]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


HUB = ".cache/huggingface/hub"
PLACES = {
    "hub": f"{HUB}/models--any--repo/blobs/{SHA256}",
    "ollama": f".ollama/models/blobs/sha256-{SHA256}",
    "llama.cpp": ".cache/llama.cpp/org_name-GGUF_name-Q4_K_M.gguf",
    "lmstudio": ".lmstudio/models/org/name-GGUF/name-Q4_K_M.gguf",
}


@pytest.mark.parametrize("cache", PLACES)
def test_it_is_found_in_each_cache_and_its_source_says_in_which(host: Host, cache: str) -> None:
    path = host.put(PLACES[cache])
    (found,) = host.caches.find(REPO, NAME, len(DATA), SHA256, None)
    assert (found.path, found.source, found.size) == (str(path), f"adopted:{cache}", len(DATA))


def test_those_with_the_hash_in_their_name_come_first(host: Host) -> None:
    for path in PLACES.values():
        host.put(path)
    assert set(host.find()[:2]) == {PLACES["hub"], PLACES["ollama"]}
    assert len(host.find()) == 4


def test_a_small_file_is_found_in_the_hubs_cache_by_gits_hash(host: Host) -> None:
    host.put(f"{HUB}/models--any--repo/blobs/{GIT_SHA1}")
    assert host.find(sha256=None, git=GIT_SHA1) == [f"{HUB}/models--any--repo/blobs/{GIT_SHA1}"]


def test_a_file_in_a_folder_of_its_repository(host: Host) -> None:
    host.put(".cache/llama.cpp/org_name_Q4_x-00001-of-00002.gguf")
    host.put(".lmstudio/models/org/name/Q4/x-00001-of-00002.gguf")
    host.put(".lmstudio/models/Org/Name/x-00001-of-00002.gguf")
    name = SafeName("Q4/x-00001-of-00002.gguf")
    assert len(host.caches.find(RepoId("org/name"), name, len(DATA), SHA256, None)) == 3


@pytest.mark.parametrize(
    "path",
    [
        f"{HUB}/models--any--repo/blobs/{SHA256}.1a2b3c4d.incomplete",
        f".ollama/models/blobs/sha256-{SHA256}-partial",
        f".ollama/models/blobs/sha256-{SHA256}-partial-0",
        ".cache/llama.cpp/org_name-GGUF_name-Q4_K_M.gguf.downloadInProgress",
        ".cache/llama.cpp/org_name-GGUF_other.gguf",
        ".lmstudio/models/org/name-GGUF/.hidden/name-Q4_K_M.gguf",
        f"{HUB}/datasets--any--repo/blobs/{SHA256}",
    ],
)
def test_what_is_not_finished_or_another_file_is_not_found(host: Host, path: str) -> None:
    host.put(path)
    assert host.find() == []


@pytest.mark.parametrize("cache", PLACES)
def test_another_size_is_another_file(host: Host, cache: str) -> None:
    host.put(PLACES[cache], DATA[:-1])
    assert host.find() == []


def test_without_a_hash_or_a_size_nothing_could_prove_it(host: Host) -> None:
    for path in PLACES.values():
        host.put(path)
    assert host.find(sha256=None) == []
    assert host.find(size=None) == []


@pytest.mark.parametrize("cache", PLACES)
def test_a_link_out_of_the_cache_is_passed_over_at_level_debug(host: Host, cache: str, tmp_path: Path) -> None:
    secret = host.put("secret")
    link = tmp_path / PLACES[cache]
    link.parent.mkdir(parents=True)
    link.symlink_to(secret)
    with logged("INFO") as lines:
        assert host.find() == []
    assert lines == []


def test_a_blob_may_be_a_link_within_the_hubs_cache(host: Host, tmp_path: Path) -> None:
    host.put(f"{HUB}/blobs/ab/abcdef")
    blob = tmp_path / PLACES["hub"]
    blob.parent.mkdir(parents=True)
    blob.symlink_to("../../blobs/ab/abcdef")
    assert host.find() == [PLACES["hub"]]


def test_fifos_and_folders_are_no_files(host: Host, tmp_path: Path) -> None:
    for cache in ("hub", "llama.cpp"):
        (tmp_path / PLACES[cache]).parent.mkdir(parents=True)
        os.mkfifo(tmp_path / PLACES[cache])
    (tmp_path / PLACES["ollama"]).mkdir(parents=True)
    assert host.find() == [] == host.find(size=0)


def test_caches_are_read_again_after_a_while_and_not_for_each_want(host: Host) -> None:
    assert host.find() == []
    host.put(PLACES["ollama"])
    host.now = HOST_CACHES_S - 1
    assert host.find() == []
    host.now = HOST_CACHES_S
    assert host.find() == [PLACES["ollama"]]


def test_another_setting_counts_at_once(host: Host, tmp_path: Path) -> None:
    host.put(PLACES["ollama"])
    host.put("srv/org_name-GGUF_name-Q4_K_M.gguf")
    assert host.find() == [PLACES["ollama"]]
    host.setting = [str(tmp_path / "srv")]
    assert host.find() == ["srv/org_name-GGUF_name-Q4_K_M.gguf"]
    host.setting = [AUTO, str(tmp_path / "srv")]
    assert len(host.find()) == 2
    host.setting = []
    assert host.find() == []


def test_our_own_directories_are_not_adopted_from(host: Host, tmp_path: Path) -> None:
    host.put(PLACES["hub"])
    (tmp_path / "view").symlink_to(HUB)
    host.own = [str(tmp_path / "view")]
    assert host.find() == []


def test_a_file_that_went_meanwhile_is_not_found(host: Host) -> None:
    path = host.put(PLACES["ollama"])
    assert host.find()
    path.unlink()
    assert host.find() == []


def test_variables_of_the_programs_say_where(tmp_path: Path) -> None:
    assert usual_places({"HOME": "/h"}) == [
        "/h/.cache/huggingface/hub",
        "/h/.ollama/models",
        "/usr/share/ollama/.ollama/models",
        "/h/.cache/llama.cpp",
        "/h/.lmstudio/models",
    ]
    assert usual_places({"HOME": "/h", "HF_HOME": "/x", "OLLAMA_MODELS": "/o", "LLAMA_CACHE": "/l"})[:2] == [
        "/x/hub",
        "/o",
    ]
    assert usual_places({"HOME": "/h", "HF_HOME": "/x", "HF_HUB_CACHE": "/y"})[0] == "/y"


def test_a_survey_counts_files_and_bytes_of_each_cache(host: Host, tmp_path: Path) -> None:
    for path in PLACES.values():
        host.put(path)
    host.put(f"{HUB}/models--b--b/blobs/{OTHER}", b"12345")
    found = {one.cache: (os.path.relpath(one.root, tmp_path), one.files, one.size) for one in host.caches.survey()}
    assert found == {
        "hub": (HUB, 2, len(DATA) + 5),
        "ollama": (".ollama/models", 1, len(DATA)),
        "llama.cpp": (".cache/llama.cpp", 1, len(DATA)),
        "lmstudio": (".lmstudio/models", 1, len(DATA)),
    }


# -- the Hub's cache as a source --------------------------------------------------------------------------------------


def snapshot(host: Host, files: dict[str, bytes], commit: str = COMMIT, ref: str | None = "main") -> Path:
    """A repository in the Hub's cache, made by hand."""
    folder = host.home / HUB / "models--org--name-GGUF"
    for name, data in files.items():
        etag = hashlib.sha256(data).hexdigest()
        host.put(f"{HUB}/models--org--name-GGUF/blobs/{etag}", data)
        link = folder / "snapshots" / commit / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(folder / "blobs" / etag, link.parent))
    if ref:
        host.put(f"{HUB}/models--org--name-GGUF/refs/{ref}", commit.encode())
    return folder


def failing(source: HubCacheSource, revision: str = "main", repo: str = REPO) -> Code:
    with pytest.raises(WantdError) as caught:
        asyncio.run(source.listing(ask(repo, revision)))
    assert caught.value.hint
    return caught.value.code


@pytest.fixture
def source(host: Host) -> HubCacheSource:
    return HubCacheSource(host.caches)


@pytest.mark.parametrize("revision", ["main", COMMIT, COMMIT[:12]])
def test_commit_names_hashes_and_sizes_are_told(host: Host, source: HubCacheSource, revision: str) -> None:
    snapshot(host, {NAME: DATA, "Q4/config.json": b"{}"})
    snapshot(host, {"old.gguf": b"old"}, OTHER, None)
    listing = asyncio.run(source.listing(ask(REPO, revision)))
    assert (listing.source, listing.commit) == ("adopted:hub", COMMIT)
    assert {(file.name, file.size, file.sha256) for file in listing.files} == {
        (NAME, len(DATA), SHA256),
        ("Q4/config.json", 2, hashlib.sha256(b"{}").hexdigest()),
    }


async def test_what_huggingface_hub_wrote_is_listed_as_the_hub_lists_it(
    host: Host, source: HubCacheSource, tmp_path: Path
) -> None:
    files: dict[str, bytes | str] = {"config.json": "{}", "sub/model.safetensors": DATA}
    async with EmbeddedHub([Repo.of(REPO, files)]) as hub:
        commit = hub.repos[REPO].refs["main"]
        path = await asyncio.to_thread(
            huggingface_hub.snapshot_download, REPO, cache_dir=tmp_path / HUB, endpoint=hub.endpoint, token=False
        )
    listing = await source.listing(ask(REPO))
    assert (listing.commit, os.path.basename(path)) == (commit, commit)
    assert {file.name: (file.sha256, bool(file.git_sha1)) for file in listing.files} == {
        "config.json": (None, True),
        "sub/model.safetensors": (SHA256, False),
    }
    assert has_hub_cache(host.caches)
    for file in listing.files:
        (found, *_) = host.caches.find(REPO, file.name, file.size, file.sha256, file.git_sha1)
        assert found.source == "adopted:hub"


def test_a_tree_tells_of_files_that_were_not_downloaded(host: Host, source: HubCacheSource) -> None:
    folder = snapshot(host, {NAME: DATA})
    tree = {
        "format_version": 1,
        "files": {
            NAME: {"size": len(DATA), "blob_id": "1" * 40, "lfs_sha256": SHA256, "lfs_size": len(DATA)},
            "config.json": {"size": 2, "blob_id": "2" * 40, "lfs_sha256": None},
        },
    }
    host.put(f"{HUB}/{folder.name}/trees/{COMMIT}.json", json.dumps(tree).encode())
    files = {file.name: file for file in asyncio.run(source.listing(ask(REPO))).files}
    assert (files[SafeName("config.json")].git_sha1, files[NAME].sha256) == ("2" * 40, SHA256)
    with pytest.raises(WantdError) as caught:
        asyncio.run(source.locate(ask(REPO, COMMIT), SafeName("config.json")))
    assert caught.value.code is Code.FILE_NOT_FOUND


def test_a_listing_says_whether_it_may_lack_files_and_since_when_it_knows_a_branch(
    host: Host, source: HubCacheSource
) -> None:
    folder = snapshot(host, {NAME: DATA})
    os.utime(folder / "refs" / "main", (1_700_000_000, 1_700_000_000))
    listing = asyncio.run(source.listing(ask(REPO)))
    assert (listing.partial, listing.note) == (
        True,
        "The Hub could not be asked; this is from its cache on this host: 'main' is 1a2b3c4d5e6f, as it was on "
        "2023-11-14; it lists only what was downloaded into it; the rest follows when the Hub can be reached.",
    )
    known = {NAME: {"size": len(DATA), "blob_id": "1" * 40, "lfs_sha256": SHA256}}
    host.put(f"{HUB}/{folder.name}/trees/{COMMIT}.json", json.dumps({"format_version": 1, "files": known}).encode())
    listing = asyncio.run(source.listing(ask(REPO)))
    assert not listing.partial
    assert "as it was on 2023-11-14" in (listing.note or "")
    listing = asyncio.run(source.listing(ask(REPO, COMMIT)))  # a commit never changes
    assert (listing.partial, listing.note) == (False, None)


def test_a_plain_file_in_a_snapshot_is_listed_without_a_hash(host: Host, source: HubCacheSource) -> None:
    folder = snapshot(host, {NAME: DATA})
    host.put(f"{HUB}/{folder.name}/snapshots/{COMMIT}/config.json", b"{}")
    files = {file.name: file for file in asyncio.run(source.listing(ask(REPO))).files}
    config = files[SafeName("config.json")]
    assert (config.size, config.sha256, config.git_sha1) == (2, None, None)


def test_links_out_of_the_cache_are_not_listed(host: Host, source: HubCacheSource, tmp_path: Path) -> None:
    folder = snapshot(host, {NAME: DATA})
    host.put("secret", b"secret")
    (folder / "snapshots" / COMMIT / "stolen.gguf").symlink_to(tmp_path / "secret")
    (folder / "snapshots" / COMMIT / "up").symlink_to(tmp_path)
    assert [file.name for file in asyncio.run(source.listing(ask(REPO))).files] == [NAME]


def test_what_is_not_there_is_said(host: Host, source: HubCacheSource) -> None:
    assert failing(source) is Code.MODEL_NOT_FOUND
    assert not has_hub_cache(host.caches)
    folder = snapshot(host, {NAME: DATA})
    assert failing(source, repo="org/other") is Code.MODEL_NOT_FOUND
    assert failing(source, "dev") is Code.REVISION_NOT_FOUND
    assert failing(source, OTHER) is Code.REVISION_NOT_FOUND
    for broken in (b"", b"x" * 40, b"../../../../etc", OTHER.encode()):
        (folder / "refs" / "main").write_bytes(broken)
        assert failing(source) is Code.REVISION_NOT_FOUND


@pytest.mark.parametrize("tree", [b"{", b"[]", b'{"files": 3}', b'{"files": {"x": 3, "y": {"size": -1}}}', b"[" * 9999])
def test_a_tree_that_is_broken_counts_for_nothing(host: Host, source: HubCacheSource, tree: bytes) -> None:
    folder = snapshot(host, {NAME: DATA})
    host.put(f"{HUB}/{folder.name}/trees/{COMMIT}.json", tree)
    assert [file.name for file in asyncio.run(source.listing(ask(REPO))).files] == [NAME]


class NoCaller:
    """A lane that nothing is asked of."""

    label, stall_s = "x", 1.0

    def watch(self, cut: Callable[[], None] | None) -> None: ...

    def pause(self, seconds: float) -> None: ...

    def http(self, access: object, span: object) -> object:
        raise AssertionError


def test_its_bytes_are_read_in_parts(host: Host, source: HubCacheSource) -> None:
    snapshot(host, {NAME: DATA})
    location = asyncio.run(source.locate(ask(REPO, COMMIT), NAME))
    assert (location.source, location.size, location.sha256) == ("adopted:hub", len(DATA), SHA256)
    access = location.access
    assert isinstance(access, LocalFile)
    for span in (None, (0, 10), (100, len(DATA))):
        start, end = span or (0, len(DATA))
        body = access.open(span, NoCaller())  # type: ignore[arg-type]
        assert (body.start, body.end, body.size, body.ranges) == (start, end, len(DATA), True)
        view = memoryview(bytearray(end - start + 5))
        n = body.read_into(view)
        assert bytes(view[:n]) == DATA[start:end]
        assert body.read_into(view) == 0
        assert not body.finish()
        body.close(True)


def test_a_file_that_changed_since_asks_for_another_location(host: Host) -> None:
    path = host.put("cache/x", b"1")
    access = LocalFile(HostFile(str(path), str(path.parent), "hub", 2))
    with pytest.raises(LocationExpired):
        access.open(None, NoCaller())  # type: ignore[arg-type]
