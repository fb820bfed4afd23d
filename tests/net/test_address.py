"""No server sends us to an address inside this network, however it is written."""

from __future__ import annotations

import pytest

from agent.errors import Code, WantdError
from agent.net.address import AddressRule, is_public

INSIDE = [
    "127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
    "192.0.0.8", "192.0.0.9", "192.88.99.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1",
    "ff02::1", "ff0e::1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:808:808::1",
    "2001:0:1::1", "2001:db8::1",
]  # fmt: skip
OUTSIDE = ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("ip", INSIDE)
def test_addresses_that_are_not_public_are_refused(ip: str) -> None:
    with pytest.raises(WantdError) as caught:
        AddressRule(private_ok=False).check("evil.example", ip)
    assert caught.value.code is Code.HUB_PROTOCOL
    assert not caught.value.retryable
    assert "evil.example" in caught.value.message


@pytest.mark.parametrize("ip", OUTSIDE)
def test_public_addresses_pass(ip: str) -> None:
    AddressRule(private_ok=False).check("cdn.example", ip)


@pytest.mark.parametrize("ip", ["127.0.0.1", "10.0.0.1", "::1", "fc00::1", "0.0.0.0", "100.64.0.1"])
def test_private_addresses_pass_where_the_endpoint_is_private(ip: str) -> None:
    AddressRule(private_ok=True).check("cdn.lan", ip)


@pytest.mark.parametrize("ip", ["169.254.169.254", "fe80::1", "224.0.0.1", "::ffff:169.254.169.254"])
def test_metadata_services_are_refused_even_then(ip: str) -> None:
    with pytest.raises(WantdError):
        AddressRule(private_ok=True).check("cdn.lan", ip)


@pytest.mark.parametrize("text", ["", "nonsense", "1.2.3", "1.2.3.4.5", "::g"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(WantdError):
        AddressRule(private_ok=True).check("x", text)


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:80/x", "http://10.1.1.1"]
)
def test_a_private_endpoint_allows_private_addresses(endpoint: str) -> None:
    rule = AddressRule(private_ok=False, endpoint=endpoint)
    rule.check("other", "192.168.0.1")
    rule.check_literal("127.0.0.1")
    rule.check_literal("localhost")


def test_a_public_endpoint_does_not() -> None:
    rule = AddressRule(private_ok=False, endpoint="https://huggingface.co")
    rule.check("huggingface.co", "18.1.1.1")
    for host in ("127.0.0.1", "localhost", "x.localhost", "10.0.0.1", "::1"):
        with pytest.raises(WantdError):
            rule.check_literal(host)


def test_an_endpoint_whose_name_turns_out_private_makes_private_redirects_fine() -> None:
    rule = AddressRule(private_ok=False, endpoint="https://mirror.corp")
    with pytest.raises(WantdError):
        rule.check("cdn.corp", "10.0.0.2")
    rule.check("mirror.corp", "10.0.0.1")
    rule.check("cdn.corp", "10.0.0.2")


def test_is_public_is_about_addresses_only() -> None:
    with pytest.raises(ValueError):
        is_public("huggingface.co")
