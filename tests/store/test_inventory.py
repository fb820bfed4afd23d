"""The store's hashes: a file that is there is found, one that is not is not."""

from __future__ import annotations

import os

import pytest

from agent.store.inventory import Inventory
from agent.store.layout import RECORD, Layout
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


def test_a_file_that_went_or_changed_its_size_is_not_offered(layout: Layout, inventory: Inventory) -> None:
    first = Model("a", {"m.gguf": DATA}).publish(layout)
    second = Model("b", {"n.gguf": DATA}).publish(layout)
    inventory.refresh()
    os.unlink(first.path)
    assert inventory.find(sha256(DATA)) == second.path
    os.unlink(second.path)
    put(second.path, DATA + b"!")
    assert inventory.find(sha256(DATA)) is None
    os.unlink(second.path)
    os.symlink("/dev/zero", second.path)
    assert inventory.find(sha256(DATA)) is None


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
