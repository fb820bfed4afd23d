"""A published model that is removed is reported at once where the kernel tells, and nothing else is reported."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from watchdog.observers.inotify_c import InotifyEvent, InotifyFD

from agent.store.layout import RECORD, Layout, Published, read_record
from agent.store.record_watch import MODEL_WATCHES_MAX, RecordWatch
from tests.harness import wait_until
from tests.store.builders import Model, make_layout, put

NOBODY = 65534
FILES = {"m.gguf": b"weights", "config.json": b"{}", "1_Pooling/config.json": b"{}"}


class Mortal(InotifyFD):
    """Its thread can be made to end as watchdog's does: by an exception, and without a word."""

    dies = False

    def handle_event(self, event: InotifyEvent) -> None:
        if self.dies:
            raise KeyError(event)
        super().handle_event(event)

    def die_of_next(self, model: Published) -> None:
        self.dies = True
        os.unlink(put(f"{model.directory}/x", b""))
        self.join(10)
        assert not self.is_alive()


class Watched:
    """A record watch, how often it rang, what it reported, and the inotify instances that it opened."""

    def __init__(self, layout: Layout, watches_max: int = 4096) -> None:
        self.rings = 0
        self.lost: set[str] = set()
        self.opened: list[Mortal] = []
        self.refusal: OSError | None = None
        self.watch = RecordWatch(layout.root, self.ring, watches_max=watches_max, open_inotify=self.open)

    def open(self) -> InotifyFD:
        if self.refusal:
            raise self.refusal
        self.opened.append(Mortal())
        self.opened[-1].start()
        return self.opened[-1]

    def ring(self) -> None:
        self.rings += 1

    def reports(self, *published: Published) -> None:
        """Wait until these models were reported, and none but these."""
        wanted = {one.directory for one in published}

        def there() -> bool:
            self.lost |= self.watch.take()
            return self.lost >= wanted

        wait_until(there, f"{wanted} reported")
        assert self.lost == wanted
        self.lost = set()


@pytest.fixture
def make(layout: Layout) -> Iterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def make(**options: int) -> Watched:
        made.append(Watched(layout, **options))
        return made[-1]

    yield make
    for one in made:
        one.watch.stop()


@pytest.fixture
def watched(make: Callable[..., Watched]) -> Watched:
    return make()


def publish(layout: Layout, name: str = "org/name") -> Published:
    return Model(name, FILES).publish(layout)


REMOVALS: dict[str, Callable[[str], object]] = {
    "rm of the record": lambda path: os.unlink(f"{path}/{RECORD}"),
    "rm of a file": lambda path: os.unlink(f"{path}/m.gguf"),
    "rm of a file in a directory of the model": lambda path: os.unlink(f"{path}/1_Pooling/config.json"),
    "rm -r of a directory of the model": lambda path: shutil.rmtree(f"{path}/1_Pooling"),
    "rm -r of the model": shutil.rmtree,
    "rm -r of the directory above": lambda path: shutil.rmtree(os.path.dirname(path)),
    "mv of a file": lambda path: os.rename(f"{path}/config.json", f"{path}/x"),
    "mv of a file to another directory": lambda path: os.rename(f"{path}/config.json", f"{path}/../../../x"),
    "mv of a directory of the model": lambda path: os.rename(f"{path}/1_Pooling", f"{path}/x"),
    "mv of the model": lambda path: os.rename(path, f"{path}.away"),
    "mv of the directory above": lambda path: os.rename(os.path.dirname(path), path.removesuffix("/org/name") + "/x"),
    "mv of the store": lambda path: os.rename(path.removesuffix("/org/name"), f"{path}/../../../x"),
    "mv over a file": lambda path: os.rename(put(f"{path}/../x", b"others"), f"{path}/m.gguf"),
}


@pytest.mark.parametrize("removal", REMOVALS.values(), ids=REMOVALS)
def test_whatever_takes_a_model_away_is_heard(
    removal: Callable[[str], object], layout: Layout, watched: Watched
) -> None:
    model = publish(layout)
    assert watched.watch.watch(model)
    assert watched.watch.take() == set()
    removal(model.directory)
    watched.reports(model)
    assert watched.watch.watched == 0


def test_what_concerns_no_watched_model_is_not_reported(layout: Layout, watched: Watched) -> None:
    model, other, last = (publish(layout, name) for name in ("org/name", "org/other", "org/name/deeper"))
    assert watched.watch.watch(model)
    assert watched.watch.watch(last)
    os.unlink(put(f"{model.directory}/notes.txt", b"mine"))
    os.unlink(put(f"{model.directory}/1_Pooling/.wantd-00.tmp", b""))
    os.unlink(f"{model.directory}/model.gguf")  # llmlb's second name: a model is whole without it
    with open(model.path, "rb") as file:
        file.read()
    os.utime(model.path)
    shutil.rmtree(other.directory)
    publish(layout, "org/other")
    os.unlink(last.path)  # events come in order: with this one, all before it have been looked at
    watched.reports(last)
    assert watched.watch.watched == 1
    assert watched.rings <= 1  # none where it was taken before it could ring


def test_a_model_that_came_back_is_watched_where_it_is(layout: Layout, watched: Watched) -> None:
    model = publish(layout)
    for _ in range(3):
        assert watched.watch.watch(model)
        os.rename(model.directory, f"{layout.root}/away")
        watched.reports(model)
        assert not watched.watch.watch(model), "it is not there"
        watched.reports(model)
        os.rename(f"{layout.root}/away", model.directory)
    assert watched.watch.watch(model)
    os.unlink(model.path)
    watched.reports(model)
    assert len(watched.opened) == 1


def test_what_went_before_the_watch_was_there_is_reported_too(layout: Layout, watched: Watched) -> None:
    file, record, whole = (publish(layout, name) for name in ("a", "b", "c"))
    os.unlink(f"{file.directory}/1_Pooling/config.json")
    os.unlink(f"{record.directory}/{RECORD}")
    shutil.rmtree(whole.directory)
    for model in (file, record, whole):
        assert not watched.watch.watch(model)
    watched.reports(file, record, whole)


def test_a_new_version_is_watched_by_its_own_files(layout: Layout, watched: Watched) -> None:
    old = Model("qwen3", {"old.gguf": b"1", "old/x": b""}).publish(layout)
    assert watched.watch.watch(old)
    new = Model("qwen3", {"new.gguf": b"2", "new/x": b""}, commit="f" * 40).publish(layout)
    watched.reports(old)  # the publication removed its record
    assert watched.watch.watch(new)
    assert watched.watch.watch(new), "again, as at each rescan"
    os.unlink(new.path)
    watched.reports(new)
    newer = Model("qwen3", {"newer.gguf": b"3"}, commit="e" * 40).publish(layout)
    assert watched.watch.watch(new) is False
    assert watched.watch.watch(newer)
    assert watched.watch.watched == 1


def test_a_model_that_nobody_asks_for_is_not_watched_any_more(layout: Layout, watched: Watched) -> None:
    one, two = publish(layout, "org/one"), publish(layout, "org/two")
    assert watched.watch.watch(one) and watched.watch.watch(two)
    watched.watch.unwatch(one.directory)
    watched.watch.unwatch(f"{layout.root}/never-was")
    assert watched.watch.watched == 1
    shutil.rmtree(one.directory)
    os.unlink(two.path)
    watched.reports(two)


def test_a_model_that_was_moved_and_linked_back_is_watched(layout: Layout, watched: Watched, tmp_path: Path) -> None:
    model = publish(layout)
    os.rename(model.directory, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", model.directory)
    assert watched.watch.watch(model)
    os.unlink(tmp_path / "elsewhere" / "m.gguf")
    watched.reports(model)
    put(model.path, b"weights")
    assert watched.watch.watch(model)
    os.unlink(model.directory)
    watched.reports(model)


def small(layout: Layout, count: int) -> list[Published]:
    """Models as cheap as they can be: 20 to an organisation, one file each."""
    first = read_record(Model("first", {"m.gguf": b"x"}).publish(layout).directory)
    assert first is not None
    models = []
    for number in range(count):
        directory = f"{layout.root}/org-{number // 20}/model-{number}"
        os.makedirs(directory)
        for name in (RECORD, "m.gguf"):
            put(f"{directory}/{name}", b"x")
        models.append(Published(first, f"{directory}/m.gguf", directory))
    return models


def test_beyond_the_budget_models_are_left_to_the_rescan(layout: Layout, make: Callable[..., Watched]) -> None:
    watched = make(watches_max=500)
    models = small(layout, 2000)
    heard = [model for model in models if watched.watch.watch(model)]
    assert 400 < len(heard) < 500, "the directories above them count as well"
    assert watched.watch.watched == len(heard)
    for model in models[len(heard) :: 20]:
        shutil.rmtree(model.directory)
    for model in heard[:100]:
        shutil.rmtree(model.directory)
    watched.reports(*heard[:100])
    room = [model for model in heard[:100] if os.makedirs(model.directory) is None]
    for model in room:
        for name in (RECORD, "m.gguf"):
            put(f"{model.directory}/{name}", b"x")
    assert all(watched.watch.watch(model) for model in room), "what was reported has made room"


def test_one_model_does_not_use_up_what_all_share(layout: Layout, watched: Watched) -> None:
    wide = Model("wide", {f"{number}/x": b"" for number in range(MODEL_WATCHES_MAX + 1)}).publish(layout)
    assert not watched.watch.watch(wide)
    assert watched.opened == []
    assert watched.watch.watch(publish(layout))


def test_a_storm_of_removals_rings_once_and_costs_each_model_one_event(layout: Layout, watched: Watched) -> None:
    model = Model("many", {f"{number}.json": b"" for number in range(3000)}).publish(layout)
    others = small(layout, 300)
    assert all(watched.watch.watch(one) for one in (model, *others))
    threads = [
        threading.Thread(target=shutil.rmtree, args=(path,), kwargs={"ignore_errors": True})
        for path in (model.directory, *{os.path.dirname(one.directory) for one in others})
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: watched.watch.watched == 0, "all are reported")
    assert watched.rings == 1
    watched.reports(model, *others)
    assert watched.opened[0].is_alive()


def test_renames_and_removals_of_directories_in_a_storm_leave_the_thread_alive(
    layout: Layout, watched: Watched
) -> None:
    """What watchdog's recursive watch dies of."""
    model = publish(layout)
    done = threading.Event()

    def storm(number: int) -> None:
        for turn in range(300):
            path = f"{layout.root}/org/{number}"
            os.makedirs(f"{path}/a/b")
            os.rename(f"{path}/a", f"{path}/{turn}")
            shutil.rmtree(path)
        done.set()

    threads = [threading.Thread(target=storm, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while not done.is_set():
        assert watched.watch.watch(model)
        os.rename(model.directory, f"{layout.root}/org/away")
        watched.reports(model)
        os.rename(f"{layout.root}/org/away", model.directory)
    for thread in threads:
        thread.join()
    assert len(watched.opened) == 1
    assert watched.opened[0].is_alive()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_has_died_is_noticed_and_everything_reported(layout: Layout, watched: Watched) -> None:
    one, two = publish(layout, "one"), publish(layout, "two")
    descriptors = len(os.listdir("/proc/self/fd"))
    for turn in range(3):
        assert watched.watch.watch(one) and watched.watch.watch(two)
        watched.opened[turn].die_of_next(one)
        watched.watch.ensure()
        watched.watch.ensure()
        assert watched.watch.take() == {one.directory, two.directory}
    assert watched.watch.watch(one) and watched.watch.watch(two)
    watched.opened[3].die_of_next(one)
    assert watched.watch.watch(one), "noticed before the rescan"
    assert watched.watch.take() == {one.directory, two.directory}
    os.unlink(one.path)
    watched.reports(one)
    watched.watch.stop()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_without_inotify_everything_is_left_to_the_rescan(layout: Layout, watched: Watched) -> None:
    watched.refusal = OSError(errno.EMFILE, "inotify instance limit reached")
    models = [publish(layout, name) for name in ("one", "two")]
    assert not any(watched.watch.watch(model) for model in models)
    watched.refusal = None
    assert not watched.watch.watch(models[0]), "not asked for again for every model"
    watched.watch.ensure()
    assert all(watched.watch.watch(model) for model in models), "but at the next rescan"
    os.unlink(models[0].path)
    watched.reports(models[0])


class Full(InotifyFD):
    """The user has no watch left."""

    asked = 0

    def add_callback(self, *arguments: object) -> int:  # type: ignore[override]
        self.asked += 1
        raise OSError(errno.ENOSPC, "inotify watch limit reached")


def test_at_the_limit_of_the_kernel_no_more_are_asked_for(layout: Layout) -> None:
    full = Full()
    full.start()
    watch = RecordWatch(layout.root, lambda: None, open_inotify=lambda: full)
    models = small(layout, 50)
    assert not any(watch.watch(model) for model in models)
    assert full.asked == 1
    assert watch.take() == set(), "a model that cannot be watched is not lost"
    watch.ensure()
    assert not any(watch.watch(model) for model in models)
    assert full.asked == 2
    watch.stop()


def test_a_directory_that_may_not_be_read_is_left_to_the_rescan() -> None:
    with tempfile.TemporaryDirectory() as root:  # not tmp_path, which is closed to all users but its own
        os.chmod(root, 0o755)
        layout = make_layout(f"{root}/models")
        closed, model = publish(layout, "closed"), publish(layout, "open")
        os.chmod(f"{closed.directory}/1_Pooling", 0o300)
        watched = Watched(layout)
        user = os.geteuid()
        os.seteuid(user or NOBODY)
        try:
            assert not watched.watch.watch(closed)
            assert watched.watch.watch(model)
        finally:
            os.seteuid(user)
        assert watched.watch.take() == set()
        os.unlink(model.path)
        watched.reports(model)
        watched.watch.stop()


class Held(InotifyFD):
    """Reads nothing before it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_read = threading.Event()

    def run(self) -> None:
        self.may_read.wait()
        super().run()


def test_when_the_queue_of_the_kernel_runs_over_everything_is_reported(layout: Layout) -> None:
    held = Held()
    held.start()
    rings: list[None] = []
    watch = RecordWatch(layout.root, lambda: rings.append(None), open_inotify=lambda: held)
    models = [publish(layout, name) for name in ("org/one", "two", "three")]
    assert all(watch.watch(model) for model in models)
    with open("/proc/sys/fs/inotify/max_queued_events", encoding="ascii") as file:
        limit = int(file.read())
    for number in range(limit + 1):
        path = f"{models[1].directory}/{number}"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        os.unlink(path)
    held.may_read.set()
    wait_until(lambda: rings, "it rings")
    wait_until(lambda: watch.watched == 0, "all are reported")
    assert watch.take() == {model.directory for model in models}
    assert len(rings) == 1
    watch.stop()


def test_stopping_reports_nothing_and_ends_the_thread(layout: Layout) -> None:
    threads = set(threading.enumerate())
    rings: list[None] = []
    watch = RecordWatch(layout.root, lambda: rings.append(None))
    watch.stop()
    model = publish(layout)
    assert watch.watch(model)
    assert len(set(threading.enumerate()) - threads) == 1
    watch.stop()
    watch.stop()
    os.unlink(model.path)
    assert watch.take() == set()
    assert rings == []
    assert set(threading.enumerate()) <= threads


def test_a_watch_with_nothing_to_watch_opens_nothing(layout: Layout, watched: Watched) -> None:
    watched.watch.ensure()
    watched.watch.unwatch(f"{layout.root}/qwen3")
    assert watched.watch.take() == set()
    assert watched.opened == []
