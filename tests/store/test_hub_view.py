"""The view in the Hub's cache layout: huggingface_hub reads it, nothing done there harms a model, and it is mended."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import msgspec
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from agent.disk import TEMP_PREFIX
from agent.store.hub_layout import git_sha1
from agent.store.hub_view import HubView, obstacle
from agent.store.inventory import Inventory
from agent.store.layout import RECORD, Layout, Record, short
from agent.store.publish import Modes
from tests.store.builders import COMMIT, ENDPOINT, MODES, Model, assert_whole, make_layout, put, read, sha256, tree
from tests.store.children import publish_and_mend_until_killed

OTHER = "f" * 40
WEIGHTS, CONFIG = b"weights" * 1000, b'{"a": 1}'
PLAIN = Model("name", {"model.safetensors": WEIGHTS, "config.json": CONFIG, "1_Pooling/config.json": b"{}"})
SNAPSHOT = f"models--org--name/snapshots/{COMMIT}"


def record(model: Model, **changes: Any) -> Record:
    """The model's record as the agent writes it: with the ETag of each file."""
    files = [
        msgspec.structs.replace(file, etag=file.sha256 if len(data) > 100 else git_sha1(data))
        for file, data in zip(model.record.files, model.files.values(), strict=True)
    ]
    return msgspec.structs.replace(model.record, files=files, **changes)


def publish(model: Model, layout: Layout, **changes: Any) -> Record:
    """Put the model in the store."""
    made = record(model, **changes)
    model.stage(layout).publish(made, ENDPOINT)
    return made


@pytest.fixture
def hub(layout: Layout) -> str:
    return f"{os.path.dirname(layout.root)}/hub"


@pytest.fixture
def view(layout: Layout, hub: str) -> HubView:
    return open_view(layout, hub)


def open_view(layout: Layout, hub: str, modes: Modes = MODES) -> HubView:
    return HubView(hub, layout, Inventory(layout), modes)


def contents(root: str) -> dict[str, bytes | str]:
    """Everything below: bytes of files, and targets of links."""
    found: dict[str, bytes | str] = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = f"{folder}/{name}"
            found[os.path.relpath(path, root)] = os.readlink(path) if os.path.islink(path) else read(path)
    return found


def copy_of(layout: Layout, repo: str) -> str:
    """The path of the copy of a ledger, in the view."""
    return f".locks/.wantd-{short(layout.root)}/{repo}.json"


def load(hub: str, repo: str = "org/name", revision: str = "main") -> dict[str, bytes]:
    """The files of the snapshot that huggingface_hub finds without a network."""
    path = huggingface_hub.snapshot_download(repo, revision=revision, cache_dir=hub, local_files_only=True)
    return {name: read(f"{path}/{name}") for name in tree(path)}


def assert_good(hub: str, model: Model = PLAIN, layout: Layout | None = None) -> None:
    """huggingface_hub loads the model by name, and has no complaint."""
    assert load(hub) == model.files
    assert huggingface_hub.scan_cache_dir(hub).warnings == []
    if layout:
        assert_whole(layout, model)


# What is made


def test_a_published_model_is_there_in_the_hubs_layout(layout: Layout, view: HubView, hub: str) -> None:
    view.show(publish(PLAIN, layout))
    repo = "models--org--name"
    pooling, config, weights = git_sha1(b"{}"), git_sha1(CONFIG), sha256(WEIGHTS)
    made = contents(hub)
    assert made.pop("CACHEDIR.TAG").startswith(b"Signature: 8a477f597d28d172789f06886806bc55\n")  # type: ignore[arg-type]
    assert made.pop(copy_of(layout, repo)) == read(f"{layout.view}/{repo}.json")
    assert made == {
        f"{repo}/blobs/{weights}": WEIGHTS,
        f"{repo}/blobs/{config}": CONFIG,
        f"{repo}/blobs/{pooling}": b"{}",
        f"{repo}/snapshots/{COMMIT}/model.safetensors": f"../../blobs/{weights}",
        f"{repo}/snapshots/{COMMIT}/config.json": f"../../blobs/{config}",
        f"{repo}/snapshots/{COMMIT}/1_Pooling/config.json": f"../../../blobs/{pooling}",
        f"{repo}/refs/main": COMMIT.encode(),
    }
    assert os.path.samefile(f"{hub}/{repo}/blobs/{weights}", f"{layout.root}/name/model.safetensors")
    for folder, _, names in os.walk(hub):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o755
        assert {stat.S_IMODE(os.stat(f"{folder}/{name}").st_mode) for name in names} <= {0o644}


def test_huggingface_hub_finds_it_by_name_branch_and_commit(layout: Layout, view: HubView, hub: str) -> None:
    view.show(publish(PLAIN, layout))
    assert_good(hub)
    assert load(hub, revision=COMMIT) == PLAIN.files
    found = huggingface_hub.try_to_load_from_cache("org/name", "1_Pooling/config.json", cache_dir=hub)
    assert isinstance(found, str)
    assert read(found) == b"{}"
    path = huggingface_hub.hf_hub_download("org/name", "config.json", cache_dir=hub, local_files_only=True)
    assert read(path) == CONFIG


@pytest.mark.parametrize("revision", ["v1.0", "refs/pr/1", "feature/x", "1a2b3c4d5e6f", COMMIT])
def test_a_tag_a_pull_request_and_a_short_commit_are_found_too(
    revision: str, layout: Layout, view: HubView, hub: str
) -> None:
    view.show(publish(dataclasses.replace(PLAIN, revision=revision), layout))
    assert load(hub, revision=revision) == PLAIN.files
    refs = [] if revision == COMMIT else [revision]
    assert tree(f"{hub}/models--org--name/refs") == refs
    shutil.rmtree(f"{layout.root}/name")
    view.mend()
    assert os.listdir(hub) == ["CACHEDIR.TAG"]


def test_a_repository_without_an_organisation(layout: Layout, view: HubView, hub: str) -> None:
    view.show(publish(dataclasses.replace(PLAIN, repo="gpt2"), layout))
    assert load(hub, "gpt2") == PLAIN.files


def test_two_selections_of_one_commit_add_up_and_go_one_by_one(layout: Layout, view: HubView, hub: str) -> None:
    q4 = Model("x", {"x-Q4_K_M.gguf": b"four" * 100, "README.md": b"hello"})
    q8 = Model("x--q8_0", {"x-Q8_0.gguf": b"eight" * 100, "README.md": b"hello"})
    for model in (q4, q8):
        view.show(publish(model, layout))
    assert load(hub) == q4.files | q8.files
    shutil.rmtree(f"{layout.root}/x")
    view.mend()
    assert load(hub) == q8.files
    shutil.rmtree(f"{layout.root}/x--q8_0")
    view.mend()
    assert os.listdir(hub) == ["CACHEDIR.TAG"]
    assert os.listdir(layout.view) == []


def test_the_model_published_last_says_what_a_branch_is(layout: Layout, view: HubView, hub: str) -> None:
    old = dataclasses.replace(PLAIN, name="old", commit=OTHER, files=PLAIN.files | {"old.json": b"old"})
    publish(PLAIN, layout, published_at="2026-11-23T00:00:00.000Z")
    publish(old, layout, published_at="2026-11-22T00:00:00.000Z")
    view.mend()
    assert load(hub) == PLAIN.files
    assert load(hub, revision=OTHER) == old.files
    shutil.rmtree(f"{layout.root}/name")
    view.mend()
    assert load(hub) == old.files


def test_a_new_version_takes_the_place_of_the_old_one(layout: Layout, view: HubView, hub: str) -> None:
    view.show(publish(PLAIN, layout))
    new = dataclasses.replace(PLAIN, commit=OTHER, files=PLAIN.files | {"config.json": b'{"a": 2}'})
    put(f"{layout.root}/name/config.json", b"gone")  # or the old version would be as good as the new one
    view.show(publish(new, layout))
    assert_good(hub, new)
    assert os.listdir(f"{hub}/models--org--name/snapshots") == [OTHER]
    assert len(os.listdir(f"{hub}/models--org--name/blobs")) == 3


@pytest.mark.parametrize(
    "changes",
    [{"commit": "main"}, {"commit": "1a2b3c4"}, {"repo": "../../etc"}, {"repo": "a--b"}, {"repo": "a/b/c"}],
)
def test_what_is_no_commit_or_repository_of_a_hub_is_not_shown(
    changes: dict[str, str], layout: Layout, view: HubView, hub: str
) -> None:
    view.show(publish(PLAIN, layout, **changes))
    view.mend()
    assert not os.path.exists(hub) or tree(hub) == []


@pytest.mark.parametrize("revision", ["../../x", "/etc/x", "a//b", "", ".."])
def test_a_revision_that_is_no_name_gets_no_ref(revision: str, layout: Layout, view: HubView, hub: str) -> None:
    view.show(publish(PLAIN, layout, revision=revision))
    assert load(hub, revision=COMMIT) == PLAIN.files
    assert tree(f"{hub}/models--org--name/refs") == []


def test_records_without_etags_get_those_that_the_hub_would_give(layout: Layout, view: HubView, hub: str) -> None:
    PLAIN.publish(layout)
    view.mend()
    etags = {sha256(WEIGHTS), git_sha1(CONFIG), git_sha1(b"{}")}
    assert set(os.listdir(f"{hub}/models--org--name/blobs")) == etags
    before = contents(hub)
    open_view(layout, hub).mend()
    assert contents(hub) == before


def test_git_sha1_is_what_git_says() -> None:
    assert git_sha1(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_files_of_another_repository_are_left_out(layout: Layout, view: HubView, hub: str) -> None:
    made = record(PLAIN)
    first, *rest = made.files
    files = [msgspec.structs.replace(first, repo="other/name", commit=OTHER), *rest]
    PLAIN.stage(layout).publish(msgspec.structs.replace(made, files=files), ENDPOINT)
    view.mend()
    assert load(hub) == {name: data for name, data in PLAIN.files.items() if name != first.name}


def test_half_a_model_is_not_shown(layout: Layout, view: HubView, hub: str) -> None:
    view.show(publish(PLAIN, layout))
    os.unlink(f"{layout.root}/name/config.json")
    view.mend()
    with pytest.raises(LocalEntryNotFoundError):
        load(hub)
    assert os.listdir(hub) == ["CACHEDIR.TAG"]


def test_without_a_directory_there_is_no_view(layout: Layout, hub: str) -> None:
    view = open_view(layout, "")
    view.show(publish(PLAIN, layout))
    view.mend()
    assert not os.path.exists(hub)
    assert not os.path.exists(layout.view)


def test_another_directory_or_none_takes_the_old_view_away(layout: Layout, view: HubView, hub: str) -> None:
    view.show(publish(PLAIN, layout))
    put(f"{hub}/models--other--model/refs/main", b"somebody else's")
    second = f"{hub}-2"
    open_view(layout, second).mend()
    assert load(second) == PLAIN.files
    assert sorted(os.listdir(hub)) == ["CACHEDIR.TAG", "models--other--model"]
    open_view(layout, "").mend()
    assert os.listdir(second) == ["CACHEDIR.TAG"]
    assert_whole(layout, PLAIN)


# What readers and others do there

REPO = "models--org--name"
CONFIG_BLOB = f"{REPO}/blobs/{git_sha1(CONFIG)}"


FILES = (CONFIG_BLOB, f"{SNAPSHOT}/config.json", f"{REPO}/refs/main")
FOLDERS = (f"{SNAPSHOT}/1_Pooling", f"{REPO}/refs")


def in_place(what: Callable[[str], object], places: tuple[str, ...] = FILES + FOLDERS) -> Callable[[str], None]:
    """Something else in the place of each thing that wantd made."""

    def harm(hub: str) -> None:
        for path in places:
            if os.path.isdir(f"{hub}/{path}") and not os.path.islink(f"{hub}/{path}"):
                shutil.rmtree(f"{hub}/{path}")
            else:
                os.unlink(f"{hub}/{path}")
            what(f"{hub}/{path}")

    return harm


def planted_directory(path: str) -> None:
    put(f"{path}/deep/below/file", b"planted")


HARM: dict[str, Callable[[str], object]] = {
    "all of it removed": shutil.rmtree,
    "the repository removed": lambda hub: shutil.rmtree(f"{hub}/{REPO}"),
    "the blobs removed": lambda hub: shutil.rmtree(f"{hub}/{REPO}/blobs"),
    "one blob removed": lambda hub: os.unlink(f"{hub}/{CONFIG_BLOB}"),
    "one link removed": lambda hub: os.unlink(f"{hub}/{SNAPSHOT}/1_Pooling/config.json"),
    "refs removed": lambda hub: shutil.rmtree(f"{hub}/{REPO}/refs"),
    "the tag removed": lambda hub: os.unlink(f"{hub}/CACHEDIR.TAG"),
    "another ref": lambda hub: put(f"{hub}/{REPO}/refs/main", OTHER.encode()),
    "a newline in the ref": lambda hub: put(f"{hub}/{REPO}/refs/main", f"{COMMIT}\n".encode()),
    "an empty ref": lambda hub: put(f"{hub}/{REPO}/refs/main", b""),
    "another file as a blob": lambda hub: put(f"{hub}/{CONFIG_BLOB}", b"x" * len(CONFIG)),
    "files in the place of links": lambda hub: put(f"{hub}/{SNAPSHOT}/config.json", b"mine"),
    "files": in_place(lambda path: put(path, b"planted")),
    "directories": in_place(planted_directory, FILES),
    "FIFOs": in_place(os.mkfifo),
    "dangling links": in_place(lambda path: os.symlink("/nowhere", path)),
    "links to directories": in_place(lambda path: os.symlink("/tmp", path)),
    "closed files": lambda hub: os.chmod(f"{hub}/{CONFIG_BLOB}", 0),
    "closed directories": lambda hub: [os.chmod(f"{hub}/{path}", 0) for path in (SNAPSHOT, f"{REPO}/blobs", REPO)],
    "open directories": lambda hub: os.chmod(f"{hub}/{REPO}/blobs", 0o777),
    "a tree of all files": lambda hub: put(
        f"{hub}/{REPO}/trees/{COMMIT}.json",
        b'{"format_version": 1, "files": {"missing": {"size": 1, "blob_id": "x"}}}',
    ),
    "left temporary files": lambda hub: [
        put(f"{hub}/{folder}/.wantd-0123456789abcdef.tmp", b"x") for folder in (f"{REPO}/blobs", SNAPSHOT)
    ],
}


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("harm", HARM.values(), ids=HARM.keys())
def test_what_is_done_in_the_view_harms_no_model_and_is_mended(
    harm: Callable[[str], object], restarted: bool, layout: Layout, view: HubView, hub: str
) -> None:
    view.show(publish(PLAIN, layout))
    view.mend()
    view.mend()
    before = contents(hub)
    harm(hub)
    if restarted:
        view = open_view(layout, hub)
    view.mend()
    assert contents(hub) == before
    assert_good(hub, PLAIN, layout)
    for folder, _, names in os.walk(hub):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o755
        assert {stat.S_IMODE(os.stat(f"{folder}/{name}").st_mode) for name in names} <= {0o644}
    shutil.rmtree(f"{layout.root}/name")
    view.mend()
    assert tree(hub) == ["CACHEDIR.TAG"]


@pytest.mark.parametrize("place", [REPO, f"{REPO}/blobs", f"{REPO}/snapshots", SNAPSHOT, f"{REPO}/refs"])
@pytest.mark.parametrize("then", ["mended", "gone"])
def test_links_planted_in_the_place_of_directories_are_never_followed(
    place: str, then: str, layout: Layout, view: HubView, hub: str, tmp_path: Path
) -> None:
    view.show(publish(PLAIN, layout))
    victim = tmp_path / "victim"
    shutil.copytree(f"{hub}/{place}", victim, symlinks=True, copy_function=os.link)
    before = contents(str(victim))
    shutil.rmtree(f"{hub}/{place}")
    os.symlink(victim, f"{hub}/{place}")
    if then == "gone":
        shutil.rmtree(f"{layout.root}/name")
    view.mend()
    assert contents(str(victim)) == before
    if then == "mended":
        assert_good(hub, PLAIN, layout)


def test_what_a_reader_added_stays_and_what_wantd_made_goes(layout: Layout, view: HubView, hub: str) -> None:
    view.show(publish(PLAIN, layout))
    repo = f"{hub}/{REPO}"
    put(f"{repo}/blobs/{'a' * 64}", b"theirs")
    theirs = {f"snapshots/{OTHER}/theirs.bin": "a" * 64, f"snapshots/{OTHER}/config.json": git_sha1(CONFIG)}
    os.makedirs(f"{repo}/snapshots/{OTHER}")
    for path, etag in theirs.items():
        os.symlink(f"../../blobs/{etag}", f"{repo}/{path}")
    put(f"{repo}/refs/dev", OTHER.encode())
    shutil.rmtree(f"{layout.root}/name")
    view.mend()
    assert load(hub, revision="dev") == {"theirs.bin": b"theirs", "config.json": CONFIG}
    assert huggingface_hub.scan_cache_dir(hub).warnings == []
    assert sorted(os.listdir(f"{repo}/blobs")) == sorted(theirs.values())
    assert os.listdir(f"{repo}/refs") == ["dev"]


def test_marks_of_readers_do_not_keep_an_empty_repository(layout: Layout, view: HubView, hub: str) -> None:
    view.show(publish(PLAIN, layout))
    put(f"{hub}/{REPO}/.no_exist/{COMMIT}/adapter_config.json", b"")
    shutil.rmtree(f"{layout.root}/name")
    view.mend()
    assert os.listdir(hub) == ["CACHEDIR.TAG"]


def test_a_blob_that_a_reader_replaced_is_theirs_when_the_model_goes(layout: Layout, view: HubView, hub: str) -> None:
    view.show(publish(PLAIN, layout))
    put(f"{hub}/{CONFIG_BLOB}", CONFIG)
    shutil.rmtree(f"{layout.root}/name")
    view.mend()
    assert tree(f"{hub}/{REPO}") == sorted([f"blobs/{git_sha1(CONFIG)}", f"snapshots/{COMMIT}/config.json"])


def test_a_store_without_its_ledger_gets_a_new_one(layout: Layout, view: HubView, hub: str) -> None:
    view.show(publish(PLAIN, layout))
    put(f"{layout.view}/{REPO}.json", b"{torn")
    open_view(layout, hub).mend()
    shutil.rmtree(f"{layout.root}/name")
    open_view(layout, hub).mend()
    assert os.listdir(hub) == ["CACHEDIR.TAG"]


def test_the_view_of_a_store_that_was_removed_goes_with_it(layout: Layout, view: HubView, hub: str) -> None:
    view.show(publish(PLAIN, layout))
    put(f"{hub}/{REPO}/mine.txt", b"a reader's own")
    shutil.rmtree(layout.root)
    layout.create()
    open_view(layout, hub).mend()
    assert tree(hub) == ["CACHEDIR.TAG", f"{REPO}/mine.txt"]
    assert not os.path.exists(f"{hub}/.locks")


def test_a_copy_that_a_reader_removed_is_made_again(layout: Layout, view: HubView, hub: str) -> None:
    """As in the views of an agent that made no copies."""
    view.show(publish(PLAIN, layout))
    shutil.rmtree(f"{hub}/.locks")
    open_view(layout, hub).mend()
    assert read(f"{hub}/{copy_of(layout, REPO)}") == read(f"{layout.view}/{REPO}.json")


@pytest.mark.parametrize(
    ("name", "ledger"),
    [
        (f"{REPO}.json", {"blobs": {"../../victim": []}}),
        (f"{REPO}.json", {"refs": {"../victim": ["mine"], "../../victim": ["mine"], "../../../victim": ["mine"]}}),
        ("...json", {"refs": {"../victim": ["mine"]}}),
    ],
)
def test_a_copy_that_a_reader_wrote_names_nothing_outside_the_view(
    layout: Layout, view: HubView, hub: str, name: str, ledger: dict[str, object]
) -> None:
    view.show(publish(PLAIN, layout))
    victims = [put(f"{folder}/victim", b"mine") for folder in (os.path.dirname(hub), hub, f"{hub}/{REPO}")]
    known = {"blobs": {"../../victim": [os.stat(victim).st_ino for victim in victims]}} if "blobs" in ledger else {}
    written = json.dumps({"hub": "/", **ledger, **known}).encode()
    put(f"{os.path.dirname(f'{hub}/{copy_of(layout, REPO)}')}/{name}", written)
    shutil.rmtree(layout.root)
    layout.create()
    open_view(layout, hub).mend()
    assert [read(victim) for victim in victims] == [b"mine"] * 3


# Cost, faults, and others at work


def test_a_mend_changes_nothing_where_nothing_has_changed(layout: Layout, view: HubView, hub: str) -> None:
    for number in range(20):
        publish(dataclasses.replace(PLAIN, name=f"m{number}", repo=f"org/m{number}"), layout)
    view.mend()
    places = [hub, layout.view]
    before = [(path, os.lstat(path).st_ctime_ns) for place in places for path in everything(place)]
    for _ in range(3):
        view.mend()
    assert [(path, os.lstat(path).st_ctime_ns) for place in places for path in everything(place)] == before


def everything(root: str) -> list[str]:
    return sorted(f"{folder}/{name}" for folder, folders, names in os.walk(root) for name in folders + names)


def test_on_another_file_system_it_is_not_made_and_the_reason_is_given(
    layout: Layout, elsewhere: str, capfd: pytest.CaptureFixture[str]
) -> None:
    view = open_view(layout, f"{elsewhere}/hub")
    view.show(publish(PLAIN, layout))
    view.mend()
    assert not os.path.exists(f"{elsewhere}/hub")
    assert obstacle(layout, f"{elsewhere}/hub") == "it is on another file system or mount than the store"
    assert_whole(layout, PLAIN)
    open_view(layout, f"{os.path.dirname(layout.root)}/hub").mend()  # and it can move back
    assert os.listdir(elsewhere) == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_hard_links_is_named_as_such(number: int, layout: Layout, hub: str) -> None:
    def refuse(source: str, path: str) -> None:
        raise OSError(number, os.strerror(number), source, None, path)

    assert obstacle(layout, hub, refuse) == "its file system has no hard or symbolic links"
    assert not [path for path in everything(os.path.dirname(layout.root)) if TEMP_PREFIX in path]


def test_a_file_in_the_place_of_the_view_is_left_alone(layout: Layout, hub: str) -> None:
    put(hub, b"mine")
    view = open_view(layout, hub)
    view.show(publish(PLAIN, layout))
    view.mend()
    assert read(hub) == b"mine"
    os.unlink(hub)
    view.mend()
    assert_good(hub, PLAIN, layout)


def test_two_agents_and_their_threads_work_on_one_view(layout: Layout, hub: str) -> None:
    models = [dataclasses.replace(PLAIN, name=f"m{number}", repo=f"org/m{number}") for number in range(8)]
    views = [open_view(layout, hub), open_view(layout, hub)]

    def work(view: HubView, mine: list[Model]) -> None:
        for model in mine:
            view.show(publish(model, layout))
            view.mend()

    threads = [threading.Thread(target=work, args=(views[at % 2], models[at::4])) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for model in models:
        assert load(hub, model.repo) == PLAIN.files
    assert huggingface_hub.scan_cache_dir(hub).warnings == []
    for model in models:
        shutil.rmtree(f"{layout.root}/{model.name}")
    views[0].mend()
    assert os.listdir(hub) == ["CACHEDIR.TAG"]


@pytest.mark.parametrize("kill_after_s", [0.001 * 1.6**n for n in range(10)])
def test_a_kill_at_any_moment_leaves_what_the_next_agent_mends_and_removes(
    kill_after_s: float, layout: Layout, hub: str, processes: Any
) -> None:
    ours, theirs = processes.Pipe()
    child = processes.Process(target=publish_and_mend_until_killed, args=(layout.root, hub, theirs))
    child.start()
    assert ours.recv() == "begun"
    child.join(kill_after_s)
    child.kill()
    child.join()
    layout = make_layout(layout.root)
    view = open_view(layout, hub)
    view.mend()
    if os.path.exists(f"{layout.root}/killed/{RECORD}"):
        found = load(hub)
        assert {name: read(f"{layout.root}/killed/{name}") for name in found} == found
    if os.path.exists(hub):
        warnings = [str(warning) for warning in huggingface_hub.scan_cache_dir(hub).warnings]
        assert [warning for warning in warnings if TEMP_PREFIX not in warning] == []
    shutil.rmtree(f"{layout.root}/killed", ignore_errors=True)
    view.mend()
    left = [name for folder in (hub, layout.view) if os.path.exists(folder) for name in os.listdir(folder)]
    # Temporary files go when they are a minute old.
    assert {name for name in left if not name.startswith(TEMP_PREFIX)} <= {"CACHEDIR.TAG"}


def test_umask(layout: Layout, hub: str) -> None:
    modes = Modes(0o640, 0o750)
    view = open_view(layout, hub, modes)
    made = record(PLAIN)
    PLAIN.stage(layout, modes).publish(made, ENDPOINT)
    before = os.umask(0o027)
    try:
        view.show(made)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(hub).st_mode) == 0o750
    assert stat.S_IMODE(os.stat(f"{hub}/{REPO}/refs/main").st_mode) == 0o640


@pytest.mark.parametrize("removed", ["refs/main", f"snapshots/{COMMIT}/1_Pooling/config.json", "blobs", "snapshots"])
def test_what_a_kill_left_of_a_removal_goes_at_the_next_one(
    removed: str, layout: Layout, view: HubView, hub: str
) -> None:
    view.show(publish(PLAIN, layout))
    path = Path(hub, REPO, removed)
    for file in [path] if path.is_file() else [at for at in path.rglob("*") if not at.is_dir()]:
        file.unlink()
    for folder in ("refs", "blobs", f"snapshots/{COMMIT}"):
        put(f"{hub}/{REPO}/{folder}/.wantd-0123456789abcdef.tmp", b"x")
    shutil.rmtree(f"{layout.root}/name")
    open_view(layout, hub).mend()
    assert os.listdir(hub) == ["CACHEDIR.TAG"]
