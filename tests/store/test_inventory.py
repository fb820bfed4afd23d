"""The store's hashes: a file that is there is found, one that is not is not."""

from __future__ import annotations

import os

import pytest

from agent.store.inventory import Inventory
from agent.store.layout import RECORD, Layout
from agent.store.stamps import Stopped
from tests.store.builders import Model, put, read, sha256

DATA = b"shared weights"


@pytest.fixture
def inventory(layout: Layout) -> Inventory:
    return Inventory(layout)


def find(inventory: Inventory, data: bytes) -> str | None:
    inventory.refresh()
    return inventory.find(sha256(data))


def test_a_published_file_is_found_by_its_hash(layout: Layout, inventory: Inventory) -> None:
    assert find(inventory, DATA) is None
    Model("org/name", {"a/m.gguf": DATA}).publish(layout)
    assert inventory.find(sha256(DATA)) is None, "not before the next look"
    assert find(inventory, DATA) == f"{layout.root}/org/name/a/m.gguf"


def test_what_is_in_partials_is_not_in_the_inventory(layout: Layout, inventory: Inventory) -> None:
    Model(files={"m.gguf": DATA}).stage(layout)
    assert find(inventory, DATA) is None


def doubtful(inventory: Inventory) -> list[str]:
    return [held.path for held in inventory.doubtful(sha256(DATA))]


def prove(inventory: Inventory) -> str | None:
    (held,) = inventory.doubtful(sha256(DATA))
    return inventory.prove(held, lambda: False, lambda _: None)


def test_a_file_that_went_or_changed_its_size_is_not_offered(layout: Layout, inventory: Inventory) -> None:
    first = Model("a", {"m.gguf": DATA}).publish(layout)
    second = Model("b", {"n.gguf": DATA}).publish(layout)
    inventory.refresh()
    os.unlink(first.path)
    assert doubtful(inventory) == [second.path]
    os.unlink(second.path)
    put(second.path, DATA + b"!")
    assert inventory.find(sha256(DATA)) is None
    assert doubtful(inventory) == []
    os.unlink(second.path)
    os.symlink("/dev/zero", second.path)
    assert inventory.find(sha256(DATA)) is None
    assert doubtful(inventory) == []


def damage(path: str) -> None:
    """Other bytes, the same size, the same mtime: only ctime tells."""
    before = os.stat(path)
    with open(path, "r+b") as file:
        file.write(b"SHARED")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_file_with_other_bytes_of_the_same_size_and_time_is_never_found(layout: Layout, inventory: Inventory) -> None:
    published = Model(files={"m.gguf": DATA}).publish(layout)
    assert find(inventory, DATA) == published.path
    damage(published.path)
    assert find(inventory, DATA) is None
    assert doubtful(inventory) == [published.path]
    wrong = prove(inventory)
    assert wrong
    assert sha256(b"SHARED weights") in wrong
    assert sha256(DATA) in wrong
    assert doubtful(inventory) == [], "it is not hashed for each model that wants it"
    assert find(Inventory(layout), DATA) is None
    assert Inventory(layout).doubtful(sha256(DATA)) == [], "nor after a restart"


def test_a_file_whose_times_alone_have_changed_is_found_once_it_was_hashed(
    layout: Layout, inventory: Inventory
) -> None:
    published = Model(files={"m.gguf": DATA}).publish(layout)
    os.utime(published.path)
    assert find(inventory, DATA) is None
    assert prove(inventory) is None
    assert inventory.find(sha256(DATA)) == published.path
    again = Inventory(layout)
    assert find(again, DATA) == published.path


def test_a_model_without_stamps_is_hashed_before_its_files_are_used(layout: Layout, inventory: Inventory) -> None:
    published = Model(files={"m.gguf": DATA}).publish(layout)  # as version 0.1.0 published it
    os.unlink(layout.stamps_in(published.directory))
    assert find(inventory, DATA) is None
    assert layout.published(Model(files={"m.gguf": DATA}).target), "it stays ready: nothing speaks against it"
    assert prove(inventory) is None
    again = Inventory(layout)
    assert find(again, DATA) == published.path


def test_what_one_model_proves_counts_for_all_that_share_the_file(layout: Layout, inventory: Inventory) -> None:
    first = Model("a", {"m.gguf": DATA}).publish(layout)
    second = Model("b", {"n.gguf": DATA}).publish(layout)
    os.unlink(layout.part(sha256(DATA)))
    assert find(inventory, DATA) is None, "the link of the partial went after the stamps"
    assert sorted(doubtful(inventory)) == [first.path, second.path]
    assert inventory.prove(inventory.doubtful(sha256(DATA))[0], lambda: False, lambda _: None) is None
    assert inventory.find(sha256(DATA))
    assert doubtful(inventory) == [], "one inode was hashed, and both names have it"


def test_a_hash_can_be_stopped_and_changes_nothing(layout: Layout, inventory: Inventory) -> None:
    published = Model(files={"m.gguf": DATA}).publish(layout)
    os.utime(published.path)
    inventory.refresh()
    (held,) = inventory.doubtful(sha256(DATA))
    told: list[int] = []
    with pytest.raises(Stopped):
        inventory.prove(held, lambda: True, told.append)
    assert told == []
    assert doubtful(inventory) == [published.path]


def test_a_model_that_was_removed_is_forgotten_and_a_new_version_read(layout: Layout, inventory: Inventory) -> None:
    directory = Model(files={"m.gguf": DATA}).publish(layout).directory
    assert find(inventory, DATA)
    Model(files={"m.gguf": b"newer"}, commit="f" * 40).publish(layout)
    assert find(inventory, DATA) is None
    assert find(inventory, b"newer") == f"{directory}/m.gguf"
    os.unlink(f"{directory}/{RECORD}")
    assert find(inventory, b"newer") is None


def test_records_that_cannot_be_trusted_offer_nothing(layout: Layout, inventory: Inventory) -> None:
    directory = Model(files={"m.gguf": DATA}).publish(layout).directory
    record = read(f"{directory}/{RECORD}")
    put(f"{directory}/{RECORD}", record.replace(b"m.gguf", b"../m.gguf"))
    assert find(inventory, DATA) is None
    put(f"{directory}/{RECORD}", record[:50])
    assert find(inventory, DATA) is None
    put(f"{directory}/{RECORD}", record)
    assert find(inventory, DATA) == f"{directory}/m.gguf"


def test_models_below_models_are_looked_into(layout: Layout, inventory: Inventory) -> None:
    for name in ("qwen", "qwen/qwen2.5", "qwen/a/b"):
        Model(name, {"m.gguf": name.encode()}).publish(layout)
    assert all(find(inventory, name.encode()) for name in ("qwen", "qwen/qwen2.5", "qwen/a/b"))
