"""Addresses of `http.listen`, and which names a listener has."""

from __future__ import annotations

import pytest

from agent.core.listen import TcpAddress, UnixAddress, host_of, is_name_of, parse_address, runtime_directory

LOOPBACK, EVERYWHERE = TcpAddress("127.0.0.1", 7411), TcpAddress("0.0.0.0", 7411)
NONE: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/w.sock", UnixAddress("/run/w.sock")),
        ("unix:{runtime}/w.sock", UnixAddress("{runtime}/w.sock")),
        ("unix:~/w.sock", UnixAddress("~/w.sock")),
        ("127.0.0.1:7411", TcpAddress("127.0.0.1", 7411)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("[::1]:80", TcpAddress("::1", 80)),
        ("gpu-7.example:65535", TcpAddress("gpu-7.example", 65535)),
    ],
)
def test_an_address_is_read(text: str, address: object) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", "7411", ":7411", "unix:", "unix:w.sock", "unix:/a\0b", "host:", "host:65536", "host:-1", "host:1x"),
        *("::1:80", "[::1:80", "[x]:80", "http://host:80", "ho st:80", "a:99999999999999999999"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_address(text)


def test_how_it_is_shown() -> None:
    assert str(parse_address("[::1]:80")) == "http://[::1]:80"
    assert str(parse_address("127.0.0.1:80")) == "http://127.0.0.1:80"
    assert str(parse_address("unix:/w.sock")) == "unix:/w.sock"


def test_the_runtime_directory() -> None:
    user = {"XDG_RUNTIME_DIR": "/run/user/7"}
    assert runtime_directory({"RUNTIME_DIRECTORY": "/run/wantd:/run/more", **user}, "/home/a") == "/run/wantd"
    assert runtime_directory(user, "/home/a") == "/run/user/7/wantd"
    assert runtime_directory({"RUNTIME_DIRECTORY": "x", "XDG_RUNTIME_DIR": "y"}, "/home/a") == "/home/a/.llmlb/run"


@pytest.mark.parametrize(
    ("header", "name"),
    [("Host:80", "host"), ("host.", "host"), ("127.0.0.1", "127.0.0.1"), ("[::1]:80", "::1"), ("[0:0::1]", "::1")]
    + [(bad, None) for bad in ("", ":80", "a b", "a@b", "a/b", "[::1", "[::1]x", "[x]", "host:x", "host:80:80", "é")],
)
def test_the_name_in_a_host_header(header: str, name: str | None) -> None:
    assert host_of(header) == name


@pytest.mark.parametrize(
    ("name", "address", "own", "passes"),
    [
        ("127.0.0.1", LOOPBACK, NONE, True),
        ("127.1.2.3", LOOPBACK, NONE, True),
        ("::1", LOOPBACK, NONE, True),
        ("localhost", LOOPBACK, NONE, True),
        ("192.168.1.1", LOOPBACK, NONE, False),
        ("evil.example", LOOPBACK, NONE, False),
        ("localhost.evil.example", LOOPBACK, NONE, False),
        ("gpu-7", LOOPBACK, frozenset({"gpu-7"}), True),
        ("evil.example", EVERYWHERE, frozenset({"gpu-7"}), False),
        ("192.168.1.1", EVERYWHERE, NONE, True),
        ("localhost", EVERYWHERE, NONE, True),
        ("gpu-7.lan", TcpAddress("gpu-7.lan", 80), NONE, True),
        ("anything", UnixAddress("/w.sock"), NONE, True),
    ],
)
def test_which_names_a_listener_has(name: str, address: object, own: frozenset[str], passes: bool) -> None:
    assert is_name_of(name, address, own) is passes  # type: ignore[arg-type]
