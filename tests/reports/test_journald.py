"""The log in journald: each event with its fields, whole however large, and never a hang."""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from agent.reports.journald import Journal, encode, is_stderr
from tests.harness import DEADLINE_S


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "journal"))
        receiver.settimeout(DEADLINE_S)
        yield receiver


@pytest.fixture
def log(tmp_path: Path, journald: socket.socket) -> Iterator[None]:
    number = logger.add(
        Journal(str(tmp_path / "journal")), format="{message}", level="DEBUG", backtrace=False, diagnose=False
    )
    yield
    logger.remove(number)


def decode(data: bytes) -> list[tuple[str, bytes]]:
    """Journald's own reading of a datagram."""
    fields = []
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", rest)
            value, rest = rest[8 : 8 + length], rest[8 + length + 1 :]
        fields.append((name.decode(), value))
        data = rest
    return fields


@pytest.mark.usefixtures("log")
def test_an_event_has_its_fields_and_priority(journald: socket.socket) -> None:
    logger.bind(model="qwen3", want=["/s/a.want", "/s/b.want"], code="stalled").warning("{} is slow", "qwen3")
    fields = decode(journald.recv(65536))
    assert ("MESSAGE", b"qwen3 is slow") in fields
    assert ("PRIORITY", b"4") in fields
    assert ("MODEL", b"qwen3") in fields
    assert ("CODE", b"stalled") in fields
    assert [value for name, value in fields if name == "WANT"] == [b"/s/a.want", b"/s/b.want"]


@pytest.mark.usefixtures("log")
def test_no_text_can_forge_a_field(journald: socket.socket) -> None:
    logger.bind(want="/s/x\nPRIORITY=0\nMODEL=y").info("a\nb")
    fields = dict(decode(journald.recv(65536)))
    assert fields["WANT"] == b"/s/x\nPRIORITY=0\nMODEL=y"
    assert fields["PRIORITY"] == b"6"
    assert "MODEL" not in fields


@pytest.mark.usefixtures("log")
def test_an_event_too_large_for_a_datagram_comes_whole(journald: socket.socket) -> None:
    logger.info("x" * 5_000_000)
    data, ancillary, _, _ = journald.recvmsg(1024, socket.CMSG_SPACE(4))
    assert data == b""
    (_, _, content) = ancillary[0]
    with open(array.array("i", content)[0], "rb") as file:
        file.seek(0)
        fields = dict(decode(file.read()))
    assert len(fields["MESSAGE"]) == 5_000_000


@pytest.mark.usefixtures("log")
def test_a_journald_that_hangs_costs_lines_not_the_agent(journald: socket.socket) -> None:
    for number in range(400):  # its queue holds some ten or hundred of them
        logger.info("line {}", number)
    journald.setblocking(False)
    read = []
    for _ in range(400):
        try:
            read.append(journald.recv(65536))
        except BlockingIOError:
            break
    assert len(read) < 400
    logger.info("again")
    told = [dict(decode(journald.recv(65536)))["MESSAGE"].decode() for _ in range(2)]
    assert told == ["again", f"{400 - len(read)} log lines were lost: journald did not take them in"]


def test_without_journald_it_goes_to_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    number = logger.add(Journal(str(tmp_path / "nobody")), format="{message}")
    logger.info("hello")
    logger.remove(number)
    assert "hello\n" in capsys.readouterr().err


def test_a_name_of_any_bytes_can_be_a_field() -> None:
    assert encode([("WANT", os.fsdecode(b"/s/\xff.want"))]) == b"WANT=/s/\xff.want\n"


def test_only_a_standard_error_that_is_the_journals_counts(tmp_path: Path) -> None:
    with (tmp_path / "x").open("w") as file:
        info = os.fstat(file.fileno())
        assert is_stderr({"JOURNAL_STREAM": f"{info.st_dev}:{info.st_ino}"}, file.fileno())
        assert not is_stderr({"JOURNAL_STREAM": f"{info.st_dev}:{info.st_ino + 1}"}, file.fileno())
        assert not is_stderr({}, file.fileno())
        number = file.fileno()
    assert not is_stderr({"JOURNAL_STREAM": "1:2"}, number)


@pytest.mark.parametrize(
    ("level", "priority"), [("DEBUG", b"7"), ("INFO", b"6"), ("SUCCESS", b"5"), ("ERROR", b"3"), ("CRITICAL", b"2")]
)
@pytest.mark.usefixtures("log")
def test_levels_are_priorities_of_syslog(journald: socket.socket, level: str, priority: bytes) -> None:
    logger.log(level, "hello")
    assert dict(decode(journald.recv(65536)))["PRIORITY"] == priority


@pytest.mark.usefixtures("log")
def test_an_event_says_where_in_the_code_it_is_from(journald: socket.socket) -> None:
    logger.info("hello")
    fields = dict(decode(journald.recv(65536)))
    assert fields["CODE_FILE"] == os.fsencode(__file__)
    assert fields["CODE_FUNC"] == b"test_an_event_says_where_in_the_code_it_is_from"
    assert fields["SYSLOG_IDENTIFIER"] == b"wantd"


def test_a_standard_error_that_is_closed_is_no_journal() -> None:
    assert not is_stderr({"JOURNAL_STREAM": "1:2"}, 1_000_000)
