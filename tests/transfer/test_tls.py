"""TLS over a plain socket: bounded in time, whatever the other side does."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from typing import cast

import pytest

from agent.core.retry import TLS_READ_S
from agent.transfer.tls import Tls


class Dribble:
    """A connection on which there is always one more byte: those of `head`, then zeros."""

    def __init__(self, head: bytes = b"") -> None:
        self._head = iter(head)
        self.reads = 0

    def recv_into(self, buffer: memoryview, nbytes: int = 0, flags: int = 0) -> int:
        self.reads += 1
        time.sleep(0.01)  # as a slow server would
        buffer[0] = next(self._head, 0)
        return 1

    def sendall(self, data: bytes) -> None:
        return

    def close(self) -> None:
        return


class NoContent:
    """An OpenSSL that takes whatever comes and finds no content in it."""

    def wrap_bio(self, *_: object, **__: object) -> NoContent:
        return self

    def read(self, *_: object) -> int:
        raise ssl.SSLWantReadError


def test_a_handshake_that_trickles_in_ends() -> None:
    dribble = Dribble(b"\x16\x03\x03\x40\x00")  # a record of the largest length there may be: its bytes are waited for
    tls = Tls(dribble, ssl.create_default_context(), "models.example")
    with pytest.raises(TimeoutError):
        tls.handshake(0.3)
    assert dribble.reads > 5


def test_what_holds_no_content_counts_as_nothing() -> None:
    dribble = Dribble()
    tls = Tls(dribble, cast("ssl.SSLContext", NoContent()), "models.example")
    with pytest.raises(TimeoutError):
        tls.recv_into(memoryview(bytearray(10)))
    assert dribble.reads > 5


def test_an_end_that_tls_did_not_announce_is_no_end() -> None:
    ours, theirs = socket.socketpair()
    tls = Tls(ours, ssl.create_default_context(), "models.example")
    threading.Thread(target=theirs.close).start()
    with pytest.raises(ConnectionError):
        tls.handshake(TLS_READ_S)
    ours.close()
