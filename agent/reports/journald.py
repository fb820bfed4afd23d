"""Log lines straight to journald, each with its fields: `journalctl -u wantd MODEL=qwen3` (systemd's native protocol).

Protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/. One datagram an event; one too large goes as a sealed memfd.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loguru import Message

SOCKET = "/run/systemd/journal/socket"
# Priorities of syslog(3), which journald shares.
PRIORITIES = {"TRACE": 7, "DEBUG": 7, "INFO": 6, "SUCCESS": 5, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}
FIELDS = ("model", "want", "code")  # of `logger.bind`, in capitals in the journal
# A journald that hangs must not hang the agent: so long is waited for room in its queue once, then lines are lost.
WAIT_S = 0.25
_TOO_LARGE = (errno.EMSGSIZE, errno.ENOBUFS)
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def is_stderr(environ: Mapping[str, str], fd: int = 2) -> bool:
    """Whether standard error goes to journald: `JOURNAL_STREAM` of systemd.exec(5) names its device and inode."""
    try:
        info = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{info.st_dev}:{info.st_ino}"


class Journal:
    """A sink for loguru. What journald does not take goes to standard error; what nobody takes is counted."""

    def __init__(self, address: str = SOCKET) -> None:
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._lost = 0

    def stop(self) -> None:
        """Called by loguru when the sink is removed."""
        self._socket.close()

    def write(self, message: Message) -> None:
        """Send one event."""
        record = message.record
        fields: list[tuple[str, str]] = [
            ("MESSAGE", str(message).rstrip("\n")),
            ("PRIORITY", str(PRIORITIES.get(record["level"].name, 6))),
            ("SYSLOG_IDENTIFIER", "wantd"),
            ("CODE_FILE", record["file"].path),
            ("CODE_LINE", str(record["line"])),
            ("CODE_FUNC", record["function"]),
        ]
        for name in FIELDS:
            value = record["extra"].get(name)
            values = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
            fields += [(name.upper(), str(one)) for one in values]
        try:
            self._send(encode(fields))
        except (TimeoutError, BlockingIOError):
            self._lost += 1
        except OSError:
            print(fields[0][1], file=sys.stderr, flush=True)

    def _send(self, data: bytes) -> None:
        self._socket.settimeout(0 if self._lost else WAIT_S)
        self._one(data)
        if self._lost:
            text = f"{self._lost} log lines were lost: journald did not take them in"
            self._lost = 0
            self._one(encode([("MESSAGE", text), ("PRIORITY", "4"), ("SYSLOG_IDENTIFIER", "wantd")]))

    def _one(self, data: bytes) -> None:
        try:
            self._socket.sendto(data, self._address)
        except OSError as error:
            if error.errno not in _TOO_LARGE:
                raise
            self._as_memory(data)

    def _as_memory(self, data: bytes) -> None:
        memory = os.memfd_create("wantd-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(memory, "wb", closefd=False) as file:
                file.write(data)
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, SEALS)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", memory))]
            self._socket.sendmsg([], rights, 0, self._address)
        finally:
            os.close(memory)


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """Fields as journald reads them: `NAME=value`, or with a length where the value has more than one line."""
    parts = []
    for name, value in fields:
        data = value.encode("utf-8", "surrogateescape")
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)
