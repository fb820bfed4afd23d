"""A model's directory that was moved and linked back, and what stands in the way of a model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import Code, WantdError
from agent.store.inventory import Inventory
from agent.store.layout import Layout
from agent.store.sweep import remove_stale_stamps
from tests.store.builders import Model, assert_whole, put, sha256, tree

QWEN = Model()
GGUF = "m-Q4_K_M.gguf"


def move(layout: Layout, name: str, to: str) -> str:
    os.makedirs(os.path.dirname(to), exist_ok=True)
    shutil.move(f"{layout.root}/{name}", to)
    os.symlink(to, f"{layout.root}/{name}")
    return to


@pytest.fixture(params=["same disk", "another disk"])
def away(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place outside the store."""
    if request.param == "same disk":
        return str(tmp_path / "big" / "model")
    return f"{request.getfixturevalue('elsewhere')}/model"


@pytest.mark.parametrize("missing", [GGUF, "README.md"])
def test_a_moved_model_that_lost_a_file_gets_it_where_it_is(layout: Layout, away: str, missing: str) -> None:
    QWEN.publish(layout)
    move(layout, "qwen3", away)
    assert_whole(layout, QWEN)
    os.unlink(f"{away}/{missing}")
    QWEN.publish(layout)
    assert_whole(layout, QWEN)
    assert os.path.islink(f"{layout.root}/qwen3")
    assert tree(away) == sorted([".wantd.json", GGUF, "README.md", "manifest.json", "model.gguf"])
    newer = Model(files={"n.gguf": b"newer"}, commit="f" * 40)
    newer.publish(layout)
    assert_whole(layout, newer)


def test_what_a_moved_model_still_has_is_not_fetched_again(layout: Layout, away: str) -> None:
    QWEN.publish(layout)
    inventory = Inventory(layout)
    move(layout, "qwen3", away)
    inventory.refresh()
    wanted = sha256(QWEN.files[GGUF])
    assert inventory.find(wanted) or [held.path for held in inventory.doubtful(wanted)]
    assert inventory.entries() == [], "the view has no links across disks"
    remove_stale_stamps(layout)
    assert os.listdir(layout.stamps)


def test_a_link_that_leads_nowhere_is_told_as_that(layout: Layout, tmp_path: Path) -> None:
    os.symlink(str(tmp_path / "unmounted" / "qwen3"), f"{layout.root}/qwen3")
    os.symlink(str(tmp_path / "unmounted" / "org"), f"{layout.root}/org")
    for model in (QWEN, Model("org/name")):
        with pytest.raises(WantdError) as caught:
            model.publish(layout)
        assert caught.value.code is Code.FORBIDDEN_PATH
        assert "is a symbolic link to" in caught.value.message
        assert "unmounted" in caught.value.message
        assert "mount" in caught.value.hint


def test_links_in_a_circle_are_no_models(layout: Layout) -> None:
    os.symlink(layout.root, f"{layout.root}/self")
    os.symlink("/", f"{layout.root}/all")
    os.symlink("loop", f"{layout.root}/loop")
    QWEN.publish(layout)
    assert [directory for directory, _ in layout.record_places(linked=True)] == [f"{layout.root}/qwen3"]


STANDING: dict[str, Callable[[Layout], object]] = {
    "a file of a model where the directory of another goes": lambda layout: Model(
        "a", {"m.gguf": b"1", "b": b"2"}
    ).publish(layout),
    "the directory of a model where a file of another goes": lambda layout: Model("c/m.gguf", {"x.gguf": b"1"}).publish(
        layout
    ),
}


@pytest.mark.parametrize(("what", "newcomer"), [*zip(STANDING, ("a/b", "c"), strict=True)])
def test_the_model_that_is_in_the_way_is_named(layout: Layout, what: str, newcomer: str) -> None:
    STANDING[what](layout)
    with pytest.raises(WantdError) as caught:
        Model(newcomer, {"m.gguf": b"new"}).publish(layout)
    assert caught.value.code is Code.FORBIDDEN_PATH
    assert f"the model '{'a' if newcomer == 'a/b' else 'c/m.gguf'}' is there" in caught.value.message
    assert "remove that model" in caught.value.hint


def test_a_file_of_nobody_is_told_without_a_model(layout: Layout) -> None:
    put(f"{layout.root}/qwen3", b"a file")
    with pytest.raises(WantdError) as caught:
        QWEN.publish(layout)
    assert "the model" not in caught.value.message
