"""Room: what removal frees is true, leases keep models, and what a crash leaves of a removal is finished."""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path

import pytest

from agent.core.names import SafeName, StoreName
from agent.core.retention import Census
from agent.errors import Code, WantdError
from agent.store.hub_view import HubView
from agent.store.inventory import Inventory
from agent.store.layout import RECORD, UNFINISHED, USED, Layout
from agent.store.locks import Locks
from agent.store.room.census import take, used_bytes
from agent.store.room.leases import Leased, is_open, lease
from agent.store.room.removal import Removed, Remover
from agent.store.sweep import remove_unfinished
from tests.store.builders import MODES, Model, assert_whole, read, sha256, tree

BIG = os.urandom(3 * 1024 * 1024)
OTHER = os.urandom(2 * 1024 * 1024)


@pytest.fixture
def view(layout: Layout, tmp_path: Path) -> HubView:
    return HubView(str(tmp_path / "hub"), layout, Inventory(layout), MODES)


@pytest.fixture
def remover(layout: Layout, view: HubView) -> Remover:
    return Remover(layout, Locks(), Inventory(layout), view)


def census(layout: Layout, view: HubView, wanted: dict[str, tuple[str, ...]] | None = None) -> Census:
    inventory = Inventory(layout)
    inventory.refresh()
    return take(layout, view.root, inventory.entries(), wanted or {})


def disk_use(*roots: str) -> int:
    """As `du` says, files alone."""
    seen = {}
    for root in roots:
        for folder, _, names in os.walk(root):
            for name in names:
                info = os.lstat(f"{folder}/{name}")
                if not os.path.islink(f"{folder}/{name}"):
                    seen[info.st_ino] = info.st_blocks * 512
    return sum(seen.values())


def publish(layout: Layout, view: HubView, name: str, files: dict[str, bytes], **more: str) -> Model:
    model = Model(name, files, repo=f"org/{name}", **more)
    published = model.publish(layout)
    for data in files.values():
        with contextlib.suppress(FileNotFoundError):
            os.unlink(layout.part(sha256(data)))
    view.show(published.record)
    return model


def test_what_removal_frees_is_what_is_gone_from_the_disk(layout: Layout, view: HubView, remover: Remover) -> None:
    publish(layout, view, "qwen3", {"m-Q4_K_M.gguf": BIG, "README.md": b"hello"})
    before = disk_use(layout.root, view.root)
    promised = census(layout, view).frees(["qwen3"])
    removed = remover.remove(StoreName("qwen3"))
    after = disk_use(layout.root, view.root)
    assert removed == Removed("qwen3", "qwen3", promised, 0)
    # The view's own small files (its tag) stay, and its ledger and refs are no part of the model.
    assert len(BIG) <= promised <= before - after <= promised + 16 * 4096
    assert tree(layout.root) == []
    assert not os.path.exists(f"{view.root}/models--org--qwen3")


def test_files_of_two_models_are_freed_with_the_second(layout: Layout, view: HubView, remover: Remover) -> None:
    publish(layout, view, "one", {"m.gguf": BIG})
    path = layout.directory(StoreName("one")) + "/m.gguf"
    two = Model("two", {"m.gguf": BIG, "x.gguf": OTHER}, repo="org/two")
    stage = two.stage(layout)
    os.unlink(f"{stage.path}/m.gguf")
    stage.add(SafeName("m.gguf"), path)
    view.show(stage.publish(two.record, "https://hub.example").record)
    for name in os.listdir(layout.partial):
        os.unlink(f"{layout.partial}/{name}")
    counted = census(layout, view)
    assert counted.size("one") >= len(BIG)
    assert counted.frees(["one"]) < 100_000
    assert len(OTHER) <= counted.frees(["two"]) < len(OTHER) + 100_000
    assert counted.frees(["one", "two"]) >= len(BIG) + len(OTHER)
    assert remover.remove(StoreName("one")).freed_bytes == counted.frees(["one"])
    assert_whole(layout, two)
    assert remover.remove(StoreName("two")).freed_bytes >= len(BIG) + len(OTHER)


def test_a_file_that_another_program_links_to_is_not_counted(layout: Layout, view: HubView, tmp_path: Path) -> None:
    publish(layout, view, "qwen3", {"m.gguf": BIG})
    os.link(f"{layout.root}/qwen3/m.gguf", tmp_path / "mine.gguf")
    assert census(layout, view).frees(["qwen3"]) < 100_000


def test_what_a_reader_has_open_is_free_later_and_says_so(layout: Layout, view: HubView, remover: Remover) -> None:
    publish(layout, view, "qwen3", {"m.gguf": BIG, "x.gguf": OTHER})
    with open(f"{layout.root}/qwen3/m.gguf", "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    assert census(layout, view).models["qwen3"].in_use
    removed = remover.remove(StoreName("qwen3"))
    assert removed.held_bytes >= len(BIG) > removed.freed_bytes >= len(OTHER)
    assert mapped[:] == BIG
    mapped.close()


def test_a_model_in_use_by_no_one_is_not(layout: Layout, view: HubView) -> None:
    publish(layout, view, "qwen3", {"m.gguf": BIG})
    path = f"{layout.root}/qwen3/m.gguf"
    assert not is_open(path)
    with open(path, "rb"):
        assert is_open(path)
    assert not is_open(path)
    assert not is_open(f"{path}.not-there")
    assert not census(layout, view).models["qwen3"].in_use


def test_a_lease_keeps_a_model(layout: Layout, view: HubView, remover: Remover) -> None:
    model = publish(layout, view, "qwen3", {"m.gguf": BIG})
    with lease(layout.directory(model.target.name)):
        assert census(layout, view).models["qwen3"].leased
        with pytest.raises(Leased) as caught:
            remover.remove(StoreName("qwen3"))
        assert caught.value.pids == (os.getpid(),)
        assert_whole(layout, model)
    assert not census(layout, view).models["qwen3"].leased
    remover.remove(StoreName("qwen3"))
    with pytest.raises(FileNotFoundError), lease(layout.directory(model.target.name)):
        pass


def test_wants_and_leases_are_in_the_census(layout: Layout, view: HubView) -> None:
    publish(layout, view, "qwen3", {"m.gguf": BIG})
    stored = census(layout, view, {"qwen3": ("/spool/a.want",)}).models["qwen3"]
    assert stored.wanted_by == ("/spool/a.want",) and stored.pinned and not stored.may_go


def test_the_last_use_is_the_newest_of_mark_record_and_weights(layout: Layout, view: HubView) -> None:
    publish(layout, view, "qwen3", {"m.gguf": BIG, "config.json": b"{}"})
    at = layout.directory(StoreName("qwen3"))

    def last_used() -> float:
        return census(layout, view).models["qwen3"].last_used

    for name in (RECORD, "m.gguf", "config.json"):
        os.utime(f"{at}/{name}", (1000, 1000))
    os.utime(f"{at}/config.json", (9000, 9000))  # any program that lists models reads these
    assert last_used() == 1000
    os.utime(f"{at}/m.gguf", (2000, 1000))
    assert last_used() == 2000
    with open(f"{at}/{USED}", "w"):
        os.utime(f"{at}/{USED}", (3000, 3000))
    assert last_used() == 3000


def test_a_model_that_is_not_there_or_being_downloaded_is_not_removed(layout: Layout, remover: Remover) -> None:
    with pytest.raises(WantdError) as caught:
        remover.remove(StoreName("qwen3"))
    assert caught.value.code is Code.MODEL_NOT_FOUND
    model = Model("qwen3")
    model.publish(layout)
    lock = Locks().try_acquire(layout.model_lock(model.target.name))
    assert lock
    with pytest.raises(WantdError) as caught:
        remover.remove(StoreName("qwen3"))
    assert caught.value.code is Code.LOCK_TIMEOUT
    lock.release()
    assert_whole(layout, model)


def test_one_id_that_begins_another_is_removed_alone(layout: Layout, remover: Remover) -> None:
    short, long = Model("qwen"), Model("qwen/qwen2.5", {"m.gguf": OTHER})
    short.publish(layout)
    long.publish(layout)
    freed = remover.remove(StoreName("qwen"))
    assert freed.freed_bytes > 0
    assert_whole(layout, long)
    assert os.listdir(f"{layout.root}/qwen") == ["qwen2.5"]
    short.publish(layout)
    remover.remove(StoreName("qwen/qwen2.5"))
    assert_whole(layout, short)
    remover.remove(StoreName("qwen"))
    assert [name for name in os.listdir(layout.root) if not name.startswith(".")] == []


def test_files_of_others_in_a_models_directory_stay(layout: Layout, remover: Remover) -> None:
    model = Model("qwen3", {"model.safetensors": BIG, "sub/config.json": b"{}"})
    model.publish(layout)
    theirs = ["notes.txt", "sub/mine", "model.gguf"]
    for name in theirs:
        with open(f"{layout.root}/qwen3/{name}", "wb") as file:
            file.write(b"mine")
    remover.remove(StoreName("qwen3"))
    assert sorted(tree(layout.root)) == sorted(f"qwen3/{name}" for name in theirs)
    assert read(f"{layout.root}/qwen3/model.gguf") == b"mine"


@pytest.mark.parametrize("step", ["moved aside", "marked", "some files", "all but the record", "all but the mark"])
def test_what_a_crash_leaves_of_a_removal_is_finished(layout: Layout, remover: Remover, step: str) -> None:
    model = Model("qwen3", {"a.safetensors": BIG, "b.safetensors": OTHER, "sub/config.json": b"{}"})
    model.publish(layout)
    for name in os.listdir(layout.partial):
        os.unlink(f"{layout.partial}/{name}")
    at = layout.directory(StoreName("qwen3"))
    if step == "moved aside":
        os.rename(at, layout.stage(StoreName("qwen3")))
    else:
        os.mkdir(f"{at}/{UNFINISHED}")
    names = {"some files": ["a.safetensors"]}.get(step, [])
    if step.startswith("all but"):
        names = [n for n in tree(at) if n != RECORD] + ([RECORD] if step.endswith("mark") else [])
    for name in names:
        os.unlink(f"{at}/{name}")
    if step.startswith("all but"):
        os.rmdir(f"{at}/sub")
    remove_unfinished(layout, Locks())
    remover.finish(StoreName("qwen3"))
    assert tree(layout.root) == [] and tree(layout.partial) == []
    assert not os.path.exists(at)


def test_a_removal_that_was_broken_off_does_not_harm_a_model_that_is_wanted_again(
    layout: Layout, remover: Remover
) -> None:
    model = Model("qwen3", {"a.safetensors": BIG, "b.safetensors": OTHER})
    model.publish(layout)
    at = layout.directory(StoreName("qwen3"))
    os.mkdir(f"{at}/{UNFINISHED}")
    os.unlink(f"{at}/a.safetensors")
    assert layout.published(model.target) is None
    model.publish(layout)
    remover.finish(StoreName("qwen3"))
    assert_whole(layout, model)
    assert "before-wantd" not in " ".join(tree(layout.root))


def test_used_bytes_are_those_of_du_and_partials_count_whole(layout: Layout, view: HubView) -> None:
    publish(layout, view, "qwen3", {"m.gguf": BIG})
    assert used_bytes(layout) == disk_use(f"{layout.root}/qwen3")
    with open(layout.part("ab" * 32), "wb") as file:
        file.truncate(10**9)
    assert used_bytes(layout) == disk_use(f"{layout.root}/qwen3") + 10**9
