"""A model becomes visible in one step, and nothing of anybody else's is lost for it."""

from __future__ import annotations

import json
import os
import stat
import threading

import pytest

from agent.core.names import SafeName
from agent.errors import Code, WantdError
from agent.store.layout import RECORD, Layout
from agent.store.publish import KEPT_SUFFIX, Modes, Stage
from tests.store.builders import (
    COMMIT,
    ENDPOINT,
    Model,
    assert_true_to_record,
    assert_whole,
    make_layout,
    put,
    read,
    sha256,
    tree,
)
from tests.store.children import versions

QWEN = Model()
GGUF = "m-Q4_K_M.gguf"


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_nothing_is_seen_before_and_all_of_it_after(layout: Layout) -> None:
    stage = QWEN.stage(layout)
    assert layout.published(QWEN.target) is None
    assert tree(layout.root) == []
    published = stage.publish(QWEN.record, ENDPOINT)
    assert tree(published.directory) == sorted([RECORD, GGUF, "README.md", "manifest.json", "model.gguf"])
    assert assert_whole(layout, QWEN) == published
    assert not [name for name in os.listdir(layout.partial) if name.startswith("stage-")]


def test_files_are_linked_and_not_copied(layout: Layout) -> None:
    directory = QWEN.publish(layout).directory
    part = os.stat(layout.part(sha256(QWEN.files[GGUF])))
    assert os.path.samestat(part, os.stat(f"{directory}/{GGUF}"))
    assert os.path.samestat(part, os.stat(f"{directory}/model.gguf"))


def test_the_first_of_a_split_set_is_what_llmlb_opens(layout: Layout) -> None:
    parts = {f"m-0000{n}-of-00002.gguf": b"%d" % n for n in (2, 1)}
    published = Model(files=parts).publish(layout)
    assert published.path.endswith("/m-00001-of-00002.gguf")
    assert read(f"{published.directory}/model.gguf") == b"1"


def test_the_manifest_is_in_the_shape_that_llmlb_reads(layout: Layout) -> None:
    model = Model(files={GGUF: b"GGUF weights", "a b/c#1.txt": b"hello"})
    value = json.loads(read(f"{model.publish(layout).directory}/manifest.json"))
    url = f"{ENDPOINT}/org/name/resolve/{COMMIT}"
    weights = {"digest": sha256(b"GGUF weights"), "size": 12, "url": f"{url}/{GGUF}"}
    assert (value["format"], value["quantization"]) == ("gguf", "Q4_K_M")
    files = [{key: file[key] for key in ("name", "digest", "size", "url")} for file in value["files"]]
    assert files == [
        {"name": "model.gguf", **weights},
        {"name": GGUF, **weights},
        {"name": "a b/c#1.txt", "digest": sha256(b"hello"), "size": 5, "url": f"{url}/a%20b/c%231.txt"},
    ]


def test_safetensors_have_no_gguf_name(layout: Layout) -> None:
    model = Model(files={"model.safetensors": b"x", "config.json": b"{}"})
    published = model.publish(layout)
    assert tree(published.directory) == sorted([RECORD, "config.json", "manifest.json", "model.safetensors"])
    assert published.path == published.directory


@pytest.mark.parametrize("name", ["manifest.json", "model.gguf"])
def test_a_file_of_the_repositorys_own_wins_over_ours(name: str, layout: Layout) -> None:
    model = Model(files={"a.gguf": b"weights", name: b"the repository's"})
    for _ in range(2):
        directory = model.publish(layout).directory
        assert read(f"{directory}/{name}") == b"the repository's"
        assert_whole(layout, model)
        put(f"{directory}/a.gguf", b"spoiled!")
        assert layout.published(model.target) is None


@pytest.mark.parametrize(
    ("umask", "file", "folder"),
    [(0o000, 0o644, 0o755), (0o002, 0o644, 0o755), (0o022, 0o644, 0o755), (0o027, 0o640, 0o750)],
)
def test_everybody_may_read_and_only_the_agent_may_change(umask: int, file: int, folder: int, layout: Layout) -> None:
    model = Model("org/team/name", {"m.gguf": b"x", "a/b/c.json": b"{}"})
    before = os.umask(umask)
    try:
        modes = Modes.current()
        assert modes == Modes(file, folder)
        model.publish(layout, modes)
        put(f"{layout.root}/org/team/name/m.gguf", b"spoiled")
        again = Model("org/team/name", {"m.gguf": b"y", "d/e/f.json": b"{}"})
        again.publish(layout, modes)
    finally:
        os.umask(before)
    assert_whole(layout, again)
    for at, folders, names in os.walk(f"{layout.root}/org"):
        assert mode(at) == folder, at
        assert {name: mode(f"{at}/{name}") for name in names} == dict.fromkeys(names, file)
        del folders


# Beside others


@pytest.mark.parametrize("order", [("qwen", "qwen/qwen2.5"), ("qwen/qwen2.5", "qwen")])
def test_one_id_may_be_the_beginning_of_another(order: tuple[str, str], layout: Layout) -> None:
    models = {name: Model(name, {"m.gguf": name.encode(), "config.json": b"{}"}) for name in order}
    for _ in range(2):
        for name in order:
            models[name].publish(layout)
            for other in order[: order.index(name) + 1]:
                assert_whole(layout, models[other])
    newer = {name: Model(name, {"n.gguf": b"new " + name.encode()}, commit="f" * 40) for name in order}
    newer[order[0]].publish(layout)
    assert_whole(layout, newer[order[0]])
    assert_whole(layout, models[order[1]])


@pytest.mark.parametrize("order", [("qwen", "qwen/sub"), ("qwen/sub", "qwen")])
@pytest.mark.parametrize("name", ["config.json", "manifest.json", "model.gguf"])
def test_a_repository_with_a_folder_of_another_models_name_moves_none_of_its_files(
    name: str, order: tuple[str, str], layout: Layout
) -> None:
    models = {
        "qwen": Model("qwen", {"m.gguf": b"outer", f"sub/{name}": b"outer's"}),
        "qwen/sub": Model("qwen/sub", {"m.gguf": b"inner", "config.json": b"inner's"}),
    }
    first, second = models[order[0]], models[order[1]]
    first.publish(layout)
    before = {path: read(f"{layout.root}/{path}") for path in tree(layout.root)}
    with pytest.raises(WantdError) as caught:
        second.publish(layout)
    assert caught.value.code is Code.FORBIDDEN_PATH
    assert_whole(layout, first)
    assert {path: read(f"{layout.root}/{path}") for path in before} == before


def test_a_file_that_somebody_else_put_there_is_kept(layout: Layout) -> None:
    directory = f"{layout.root}/qwen3"
    for name in ("model.gguf", "manifest.json", GGUF, "notes.txt"):
        put(f"{directory}/{name}", f"my {name}".encode())
    QWEN.publish(layout)
    assert_whole(layout, QWEN)
    for name in ("model.gguf", "manifest.json", GGUF):
        assert read(f"{directory}/{name}{KEPT_SUFFIX}") == f"my {name}".encode()
    assert read(f"{directory}/notes.txt") == b"my notes.txt"


def test_what_was_kept_is_never_written_over(layout: Layout) -> None:
    directory = f"{layout.root}/qwen3"
    put(f"{directory}/manifest.json", b"mine")
    QWEN.publish(layout)
    os.unlink(f"{directory}/{RECORD}")  # as after a crash in the middle of a publication
    QWEN.publish(layout)
    assert_whole(layout, QWEN)
    assert read(f"{directory}/manifest.json{KEPT_SUFFIX}") == b"mine"


def test_a_linked_file_of_somebody_else_is_kept_as_the_link_that_it_is(layout: Layout) -> None:
    victim = put(f"{layout.root}/../victim", b"precious")
    os.makedirs(f"{layout.root}/qwen3")
    os.symlink(victim, f"{layout.root}/qwen3/{GGUF}")
    QWEN.publish(layout)
    assert_whole(layout, QWEN)
    assert read(victim) == b"precious"
    assert os.readlink(f"{layout.root}/qwen3/{GGUF}{KEPT_SUFFIX}") == victim


# Again


def test_another_choice_of_files_takes_the_place_of_the_old_one(layout: Layout) -> None:
    first, second, third = versions("qwen3")
    for model in (first, second, third, first):
        directory = model.publish(layout).directory
        put(f"{directory}/notes.txt", b"mine")
        assert_whole(layout, model)
        assert tree(directory) == sorted([*model.files, RECORD, "manifest.json", "model.gguf", "notes.txt"])


def test_a_gguf_that_somebody_put_beside_safetensors_stays_through_a_new_version(layout: Layout) -> None:
    old = Model(files={"model.safetensors": b"old", "x.json": b"1"})
    directory = old.publish(layout).directory
    put(f"{directory}/model.gguf", b"my own conversion")
    new = Model(files={"model.safetensors": b"new", "y.json": b"2"})
    new.publish(layout)
    assert_whole(layout, new)
    assert read(f"{directory}/model.gguf") == b"my own conversion"
    assert not os.path.exists(f"{directory}/x.json")


def test_the_very_same_again_is_left_as_it_is(layout: Layout) -> None:
    directory = QWEN.publish(layout).directory
    before = {name: os.stat(f"{directory}/{name}").st_ino for name in os.listdir(directory)}
    QWEN.publish(layout)
    assert {name: os.stat(f"{directory}/{name}").st_ino for name in os.listdir(directory)} == before


def test_a_model_that_lost_a_file_is_made_whole(layout: Layout) -> None:
    directory = QWEN.publish(layout).directory
    os.unlink(f"{directory}/README.md")
    QWEN.publish(layout)
    assert_whole(layout, QWEN)
    assert tree(directory) == sorted([RECORD, GGUF, "README.md", "manifest.json", "model.gguf"])


@pytest.mark.parametrize("what", ["a directory for a file", "a file for a directory", "a file for the model"])
def test_what_is_in_the_way_is_told_and_the_old_version_stays_in_force(what: str, layout: Layout) -> None:
    old = Model(files={"m.gguf": b"old"})
    new = Model(files={"m.gguf": b"new", "sub/x": b"1", "y": b"2"}, commit="f" * 40)
    if what == "a file for the model":
        put(f"{layout.root}/qwen3", b"a file")
    else:
        directory = old.publish(layout).directory
        put(f"{directory}/y/z" if what == "a directory for a file" else f"{directory}/sub", b"mine")
    with pytest.raises(WantdError) as caught:
        new.publish(layout)
    assert caught.value.code is Code.FORBIDDEN_PATH
    assert "in the way" in caught.value.hint
    if what != "a file for the model":
        assert_whole(layout, old)


def test_a_source_that_is_gone_is_told_as_that(layout: Layout) -> None:
    stage = QWEN.stage(layout)
    with pytest.raises(FileNotFoundError):
        stage.add(SafeName("x"), f"{layout.partial}/gone.part")
    stage.drop()
    assert not [name for name in os.listdir(layout.partial) if name.startswith("stage-")]
    assert os.path.exists(layout.part(sha256(QWEN.files[GGUF]))), "the partial is not the stage's to remove"


# On other file systems


def test_partials_may_lie_on_another_file_system(layout: Layout, elsewhere: str) -> None:
    os.rmdir(layout.partial)
    os.symlink(elsewhere, layout.partial)
    model = Model("org/name", {"m.gguf": b"x" * 10_000, "a/b.json": b"{}"})
    directory = model.publish(layout).directory
    assert_whole(layout, model)
    assert tree(directory) == sorted([RECORD, "a/b.json", "m.gguf", "manifest.json", "model.gguf"])
    assert os.path.samefile(f"{directory}/m.gguf", f"{directory}/model.gguf"), "not twice on the disk"
    assert (mode(f"{directory}/m.gguf"), mode(directory), mode(f"{directory}/a")) == (0o644, 0o755, 0o755)
    assert not [name for name in os.listdir(directory) if name.startswith(".") and name != RECORD]
    newer = Model("org/name", {"m.gguf": b"y" * 10_000}, commit="f" * 40)
    newer.publish(layout)
    assert_whole(layout, newer)
    assert not [name for name in os.listdir(elsewhere) if name.startswith("stage-")]


def test_a_part_of_the_store_may_lie_on_another_file_system(layout: Layout, elsewhere: str) -> None:
    os.symlink(elsewhere, f"{layout.root}/org")
    model = Model("org/name", {"m.gguf": b"x" * 10_000})
    model.publish(layout)
    assert_whole(layout, model)
    assert os.listdir(elsewhere) == ["name"]


def test_a_copy_that_was_cut_off_is_cleared_by_the_next_one(layout: Layout, elsewhere: str) -> None:
    os.symlink(elsewhere, f"{layout.root}/org")
    put(f"{elsewhere}/name/.wantd-stage-0123/m.gguf", b"half")
    model = Model("org/name", {"m.gguf": b"x" * 10_000})
    model.publish(layout)
    assert_whole(layout, model)
    assert [name for name in os.listdir(f"{elsewhere}/name") if name.startswith(".wantd-stage")] == []


# Where locks do not exclude


@pytest.mark.parametrize("published_before", [False, True], ids=["a new model", "a new version"])
def test_agents_that_both_believe_to_hold_the_lock_leave_the_store_whole(
    published_before: bool, layout: Layout
) -> None:
    old, new, _ = versions("qwen3")
    for number in range(15):
        store = make_layout(f"{layout.root}/{number}")
        if published_before:
            old.publish(store)
        stages = [new.stage(store) for _ in range(3)]
        failures = publish_at_once(stages, new)
        assert len(failures) < len(stages)
        assert all(isinstance(failure, (WantdError, FileNotFoundError)) for failure in failures)
        if published := store.published(new.target):
            assert_true_to_record(published)
        new.publish(store)  # one that failed tries again
        assert_whole(store, new)


def publish_at_once(stages: list[Stage], model: Model) -> list[Exception]:
    """Publish several stages of a model at the same moment; gives what went wrong."""
    failures: list[Exception] = []
    barrier = threading.Barrier(len(stages))

    def publish(stage: Stage) -> None:
        barrier.wait()
        try:
            stage.publish(model.record, ENDPOINT)
        except Exception as error:  # noqa: BLE001  the test judges it
            failures.append(error)

    threads = [threading.Thread(target=publish, args=(stage,)) for stage in stages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures
