"""One look at a path of the spool: a want, an error that says what is wrong, nothing, or a file still being written."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.core.want import MAX_BYTES
from agent.errors import Code
from agent.requests.read import Reader, Seen
from agent.spool.files import Stamp


@pytest.fixture(autouse=True)
def _as_the_agent() -> Iterator[None]:
    """The agent ignores SIGIO, which comes when a writer meets its lease."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGIO, before)


def read(path: str, closed: bool) -> Seen:
    (seen,) = Reader(os.path.dirname(path))([(path, closed)])
    return seen


def test_a_want_comes_with_its_stamp_and_a_digest_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.want"
    path.write_bytes(b"qwen3\n")
    seen = read(str(path), True)
    assert seen.want is not None
    assert [model.reference for model in seen.want.models] == ["qwen3"]
    assert seen.stamp == Stamp.of(os.lstat(path))
    assert seen.digest == hashlib.blake2b(b"qwen3\n", digest_size=16).digest()
    assert (seen.path, seen.error, seen.still) == (str(path), None, False)


def test_an_empty_one_is_named_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "Qwen--Qwen3-0.6B.want"
    path.touch()
    want = read(str(path), True).want
    assert want is not None
    assert want.models[0].reference == "Qwen/Qwen3-0.6B"


def test_what_is_wrong_with_its_content_keeps_the_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.want"
    path.write_text('{"modle": "qwen3"}')
    seen = read(str(path), True)
    assert (seen.want, seen.still) == (None, False)
    assert seen.error is not None
    assert seen.error.code is Code.WANT_INVALID
    assert seen.digest is not None
    assert seen.stamp is not None


@pytest.mark.parametrize("kind", ["directory", "link", "large"])
def test_what_is_no_want_has_a_stamp_and_no_digest(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.want"
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("elsewhere")
    else:
        path.write_bytes(b"#" * (MAX_BYTES + 1))
    seen = read(str(path), True)
    assert seen.error is not None
    assert seen.error.code is (Code.WANT_TOO_LARGE if kind == "large" else Code.WANT_UNREADABLE)
    assert seen.stamp == Stamp.of(os.lstat(path))
    assert (seen.digest, seen.want) == (None, None)


def test_one_that_is_gone_or_below_a_file_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("gone.want", "file/a.want"):
        seen = read(str(tmp_path / name), True)
        assert (seen.stamp, seen.want, seen.error, seen.still) == (None, None, None, False)


def test_a_path_that_the_system_does_not_take_is_an_error_of_that_want(tmp_path: Path) -> None:
    seen = read(str(tmp_path / f"{'x' * 300}.want"), True)
    assert seen.error is not None
    assert seen.error.code is Code.WANT_UNREADABLE
    assert "File name too long" in seen.error.message


def test_a_file_with_a_writer_is_still_written(tmp_path: Path) -> None:
    path = tmp_path / "a.want"
    with path.open("w") as file:
        file.write("qw")
        file.flush()
        seen = read(str(path), True)
    assert seen.still
    assert seen.want is None
