"""Directories of the spool: a link in the place of one is never followed, whenever it was put there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.core.limits import OPEN_FOLDERS
from agent.spool.folders import Folders


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    return path


def read(folders: Folders, path: Path) -> str:
    fd, name = folders.place(str(path))
    with open(os.open(name, os.O_RDONLY, dir_fd=fd)) as file:
        return file.read()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_place_is_the_directory_and_the_name_in_it(tmp_path: Path) -> None:
    for path in (put(tmp_path / "a.want"), put(tmp_path / "x/y/z/b.want")):
        with Folders(str(tmp_path)) as folders:
            assert read(folders, path) == "x"


def test_the_root_may_be_a_link_and_end_in_a_slash(tmp_path: Path) -> None:
    put(tmp_path / "real/x/a.want")
    (tmp_path / "link").symlink_to("real")
    with Folders(f"{tmp_path}/link") as folders:
        assert read(folders, tmp_path / "link/x/a.want") == "x"


@pytest.mark.parametrize("level", ["x", "x/y", "x/y/z"])
def test_a_link_in_the_place_of_a_directory_is_not_followed(tmp_path: Path, level: str) -> None:
    put(tmp_path / "spool/x/y/z/a.want")
    (tmp_path / "spool" / level).rename(tmp_path / "victim")
    (tmp_path / "spool" / level).symlink_to(tmp_path / "victim")
    with Folders(f"{tmp_path}/spool") as folders, pytest.raises(NotADirectoryError):
        folders.place(f"{tmp_path}/spool/x/y/z/a.want")


def test_a_directory_swapped_after_it_was_opened_is_still_the_one_that_was_opened(tmp_path: Path) -> None:
    want = put(tmp_path / "spool/x/a.want")
    with Folders(f"{tmp_path}/spool") as folders:
        fd, name = folders.place(str(want))
        want.parent.rename(tmp_path / "moved")
        (tmp_path / "spool/x").symlink_to(tmp_path)
        os.unlink(name, dir_fd=fd)
    assert not (tmp_path / "moved/a.want").exists()


def test_what_is_not_there_or_not_below_the_root_is_an_error(tmp_path: Path) -> None:
    put(tmp_path / "spool/file")
    with Folders(f"{tmp_path}/spool") as folders:
        with pytest.raises(FileNotFoundError):
            folders.place(f"{tmp_path}/spool/gone/a.want")
        with pytest.raises(NotADirectoryError):
            folders.place(f"{tmp_path}/spool/file/a.want")
        with pytest.raises(NotADirectoryError):
            folders.place(f"{tmp_path}/spool-not/a.want")


def test_names_are_listed(tmp_path: Path) -> None:
    put(tmp_path / "x/a.want")
    with Folders(str(tmp_path)) as folders, folders.listing(f"{tmp_path}/x") as fd:
        assert os.listdir(fd) == ["a.want"]


def test_few_directories_are_open_at_a_time_and_none_at_the_end(tmp_path: Path) -> None:
    before = open_files()
    with Folders(str(tmp_path)) as folders:
        for number in range(3 * OPEN_FOLDERS):
            folders.place(str(put(tmp_path / f"d{number}/a.want")))
        assert open_files() <= before + OPEN_FOLDERS + 1
    assert open_files() == before
