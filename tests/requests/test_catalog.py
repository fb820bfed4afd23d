"""The catalog in force: what changes on disk is read once, and what cannot be used leaves the last good one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from agent.requests.catalog import CatalogFile
from tests.fakes import logged


class Shelf:
    """A catalog file that the test writes; each write has a time of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.time = 1_700_000_000
        self.file = CatalogFile(lambda: str(self.path))

    def write(self, *ids: str, raw: str | None = None) -> None:
        entries = [{"id": name, "repo": f"org/{name}"} for name in ids]
        self.path.write_text(json.dumps(entries) if raw is None else raw)
        self.time += 1
        os.utime(self.path, (self.time, self.time))

    def load(self) -> tuple[bool, list[str]]:
        """Whether there is another catalog, and what was logged from WARNING up."""
        with logged("WARNING") as lines:
            return self.file.load(), lines

    @property
    def ids(self) -> list[str]:
        return sorted(self.file.catalog.entries)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "models.json")


def test_it_is_read_again_when_it_has_changed_and_only_then(shelf: Shelf) -> None:
    assert shelf.ids == []
    shelf.write("qwen3")
    with logged() as lines:
        assert shelf.file.load()
    assert lines == [f"INFO catalog {shelf.path}: 1 models"]
    assert shelf.ids == ["qwen3"]
    catalog = shelf.file.catalog
    assert shelf.load() == (False, [])
    assert shelf.file.catalog is catalog
    shelf.write("qwen3", "mistral")
    assert shelf.load() == (True, [])
    assert shelf.ids == ["mistral", "qwen3"]


def test_another_file_of_the_same_size_and_time_is_another_catalog(shelf: Shelf) -> None:
    shelf.write("qwen3")
    shelf.load()
    other = Shelf(shelf.path.with_name("other.json"))
    other.write("qwen4")
    other.path.replace(shelf.path)
    os.utime(shelf.path, (shelf.time, shelf.time))
    assert shelf.load() == (True, [])
    assert shelf.ids == ["qwen4"]


def test_another_path_takes_effect(shelf: Shelf) -> None:
    shelf.write("qwen3")
    shelf.load()
    shelf.path = shelf.path.with_name("other.json")
    shelf.write("mistral")
    assert shelf.load() == (True, [])
    assert shelf.ids == ["mistral"]


@pytest.mark.parametrize("raw", ["{", "[1]", '"text"', "\udcff"])
def test_a_broken_one_is_reported_once_and_the_last_good_one_stays(shelf: Shelf, raw: str) -> None:
    shelf.write("qwen3")
    shelf.load()
    if raw == "\udcff":
        shelf.path.write_bytes(b"\xff")
    else:
        shelf.write(raw=raw)
    changed, lines = shelf.load()
    assert not changed
    (line,) = lines
    assert line.startswith(f"ERROR cannot use the catalog {shelf.path}: ")
    assert line.endswith("; the last good one stays in force")
    assert shelf.load() == (False, [])
    assert shelf.ids == ["qwen3"]
    shelf.write("mistral")
    assert shelf.load() == (True, [])


def test_a_missing_one_is_reported_once_and_read_when_it_is_back(shelf: Shelf) -> None:
    shelf.write("qwen3")
    shelf.load()
    kept = shelf.path.rename(shelf.path.with_name("kept"))
    assert shelf.load() == (False, [f"ERROR the catalog {shelf.path} is missing; the last good one stays in force"])
    assert shelf.load() == (False, [])
    assert shelf.ids == ["qwen3"]
    kept.rename(shelf.path)
    assert shelf.load() == (True, [])  # the same file as before: it may have been away for long
    shelf.path.unlink()
    assert len(shelf.load()[1]) == 1  # and missing once more is said once more
    shelf.path = shelf.path.with_name("elsewhere")
    assert len(shelf.load()[1]) == 1  # another one is another matter
    assert shelf.load() == (False, [])


def test_entries_that_cannot_be_used_are_reported(shelf: Shelf) -> None:
    shelf.write(raw=json.dumps([{"id": "qwen3", "repo": "org/qwen3"}, {"id": "bad", "repo": "../.."}]))
    changed, lines = shelf.load()
    assert changed
    assert shelf.ids == ["qwen3"]
    assert len(lines) == 1
    assert lines[0].startswith(f"WARNING catalog {shelf.path}: ")


def test_a_directory_or_a_path_that_cannot_be_looked_at_is_reported_once(shelf: Shelf) -> None:
    shelf.write("qwen3")
    shelf.load()
    shelf.path = shelf.path.parent
    assert shelf.load()[1] == [
        f"ERROR cannot use the catalog {shelf.path}: \"[Errno 21] Is a directory: '{shelf.path}'\"; "
        "the last good one stays in force"
    ]
    assert shelf.load() == (False, [])
    shelf.path = shelf.path / ("x" * 300)
    assert len(shelf.load()[1]) == 1
    assert shelf.load() == (False, [])
    assert shelf.ids == ["qwen3"]


def test_a_changed_mode_is_a_reason_to_look_again(shelf: Shelf) -> None:
    shelf.write("qwen3")
    assert shelf.load() == (True, [])
    shelf.path.chmod(0o600)
    assert shelf.load() == (True, [])


def test_each_save_of_a_broken_one_is_reported(shelf: Shelf) -> None:
    for _ in range(2):
        shelf.write(raw="{")
        assert len(shelf.load()[1]) == 1
        assert shelf.load() == (False, [])
