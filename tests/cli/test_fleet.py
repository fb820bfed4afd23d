"""`wantd fleet nginx`: a list of hosts becomes a configuration, or errors that name the line."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.fleet.hosts import parse_hosts
from agent.fleet.nginx import Ring, bytes_of, render
from tests.harness import CHECKOUT, clean_environment

HOSTS = "gpu-1 10.0.0.1  # rack 1\n\n# the others\ngpu-2\t10.0.0.2\ngpu-3 2001:db8::3\n"
RING = Ring("https://huggingface.co", "/var/lib/nginx")


def test_a_list_of_hosts() -> None:
    members = parse_hosts(HOSTS, "hosts")
    assert [(member.name, member.host) for member in members] == [
        ("gpu-1", "10.0.0.1"),
        ("gpu-2", "10.0.0.2"),
        ("gpu-3", "[2001:db8::3]"),
    ]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", ["hosts: names no host"]),
        ("gpu-1", ["hosts, line 1: expected NAME ADDRESS, not 'gpu-1'"]),
        ("gpu-1 10.0.0.1 x", ["hosts, line 1: expected NAME ADDRESS, not 'gpu-1 10.0.0.1 x'"]),
        ("gpu-1; 10.0.0.1", ["hosts, line 1: expected NAME ADDRESS, not 'gpu-1; 10.0.0.1'"]),
        ("gpu-1 gpu-1.lan", ["hosts, line 1: 'gpu-1.lan' is not an IP address"]),
        ("a 10.0.0.1\na 10.0.0.2", ["hosts, line 2: 'a' or its address stands there twice"]),
        ("a 10.0.0.1\nb 10.0.0.1", ["hosts, line 2: 'b' or its address stands there twice"]),
    ],
)
def test_what_is_wrong_with_a_list_is_said_by_line(text: str, problems: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_hosts(text, "hosts")
    assert caught.value.problems == problems


def test_every_location_that_passes_a_request_on_strips_its_token() -> None:
    """A location with a header of its own inherits none from above: each must say it again."""
    for tls_dir in ("", "/etc/fleet"):
        text = render(parse_hosts(HOSTS, "hosts"), "gpu-1", replace(RING, tls_dir=tls_dir))
        locations = [block for block in text.split("location ")[1:] if "proxy_pass" in block]
        assert len(locations) >= 9
        for block in locations:
            if "/-/fleet {" not in block:  # it tells whether a token came
                assert 'proxy_set_header Authorization "";' in block, block
                assert 'proxy_set_header Cookie "";' in block, block
        assert "@" not in text.replace("@head", "").replace("@storage", ""), "a place was left open"


def test_the_redirects_that_are_followed_lead_to_the_storage() -> None:
    text = render(parse_hosts(HOSTS, "hosts"), "gpu-1", RING)
    assert r'"~^https://([a-z0-9-]+\.)*hf\.co/" $upstream_http_location;' in text
    assert "http://([a-z" not in text, "from https to http"


def test_members_and_nobody_else_are_admitted() -> None:
    text = render(parse_hosts(HOSTS, "hosts"), "gpu-3", RING)
    for address in ("10.0.0.1", "10.0.0.2", "2001:db8::3"):
        assert text.count(f"allow {address};") == 2
    assert text.count("deny all;") >= 2
    assert "listen [2001:db8::3]:8110 reuseport;" in text


def test_a_cache_has_keys_for_all_of_its_slices() -> None:
    text = render(parse_hosts(HOSTS, "hosts"), "gpu-1", replace(RING, max_size="1g", slice_size="1m"))
    assert "keys_zone=slices:1m" in text
    text = render(parse_hosts(HOSTS, "hosts"), "gpu-1", replace(RING, max_size="1000g", slice_size="1m"))
    assert "keys_zone=slices:128m" in text


@pytest.mark.parametrize(("size", "count"), [("1", 1), ("512k", 512 * 1024), ("1m", 1 << 20), ("2G", 2 << 30)])
def test_sizes_are_nginxs(size: str, count: int) -> None:
    assert bytes_of(size) == count


@pytest.mark.parametrize(
    "wrong",
    [
        {"slice_size": "1 m"},
        {"max_size": "much"},
        {"cache": "relative"},
        {"cache": "/var/lib; }"},
        {"tls_dir": "tls"},
        {"endpoint": "https://x; }"},
        {"endpoint": "huggingface.co"},
        {"storage": ("*",)},
        {"resolvers": ("1.1.1.1; }",)},
    ],
)
def test_nothing_that_is_given_can_write_configuration(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        render(parse_hosts(HOSTS, "hosts"), "gpu-1", replace(RING, **wrong))  # type: ignore[arg-type]


def test_the_command_prints_what_nginx_takes(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("gpu-1 127.0.0.1\ngpu-2 127.0.0.2\n")
    command = [sys.executable, "-m", "agent", "fleet", "nginx", "--hosts", str(tmp_path / "hosts"), "--self"]
    run = {"cwd": CHECKOUT, "env": clean_environment(), "capture_output": True, "text": True, "check": False}
    good = subprocess.run([*command, "gpu-2"], **run)  # type: ignore[call-overload]
    assert good.returncode == 0, good.stderr
    assert "in the clear" in good.stderr
    (tmp_path / "nginx.conf").write_text(good.stdout)
    tested = subprocess.run(["/usr/sbin/nginx", "-t", "-c", str(tmp_path / "nginx.conf")], **run)  # type: ignore[call-overload]
    assert "syntax is ok" in tested.stderr, tested.stderr
    bad = subprocess.run([*command, "gpu-9"], **run)  # type: ignore[call-overload]
    assert (bad.returncode, bad.stdout) == (78, "")
    assert "'gpu-9': not among the hosts" in bad.stderr
