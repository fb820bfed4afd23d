"""Hosts with several addresses: all are used, bad ones are left alone, the first that takes us serves."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from agent.core.addresses import in_order, slow_ones
from agent.core.retry import BAD_ADDRESS_S, COLLAPSE_S, SLOW_ADDRESS_S
from agent.transfer.addresses import Addresses
from agent.transfer.hosts import Hosts
from tests.transfer.helpers import MIB, Make, content
from tests.transfer.server import Manner, Server

V4, V6 = socket.AF_INET, socket.AF_INET6
HOST = "cdn.example:443"
FOUND = [(V6, "::1"), (V6, "::2"), (V4, "1.1.1.1"), (V4, "2.2.2.2")]


def resolving(*addresses: str) -> Any:
    """A resolver that knows these addresses for every name."""

    def resolve(host: str, port: int, type: int) -> list[Any]:
        return [(V4, socket.SOCK_STREAM, 0, "", (address, port)) for address in addresses]

    return resolve


@pytest.fixture
def other(bench: Make) -> Iterator[Any]:
    """Makes the same server once more, at 127.0.0.2 and the same port."""
    made: list[Server] = []

    def make(first: Server) -> Server:
        made.append(Server(first.files, at=("127.0.0.2", first.port)))
        return made[-1]

    yield make
    for server in made:
        server.close()


def test_families_take_turns_and_the_one_used_longest_ago_leads() -> None:
    assert in_order(FOUND, {}, {}) == ["::1", "1.1.1.1", "::2", "2.2.2.2"]
    assert in_order(FOUND, {}, {"::1": 1, "1.1.1.1": 2}) == ["::2", "2.2.2.2", "::1", "1.1.1.1"]
    assert in_order(FOUND, {"::1": 5.0, "2.2.2.2": 3.0}, {}) == ["1.1.1.1", "::2", "2.2.2.2", "::1"]


def test_an_address_is_slow_by_a_fifth_of_the_best() -> None:
    assert slow_ones({"a": [100.0, 80.0], "b": [1.0], "c": [50.0]}) == {"b"}
    assert slow_ones({"a": [1.0]}) == set() == slow_ones({})


def test_bad_addresses_are_left_alone_for_a_while_where_there_are_others() -> None:
    now = 0.0
    addresses = Addresses(lambda: now)
    assert addresses.order(HOST, FOUND[2:]) == ["1.1.1.1", "2.2.2.2"]
    addresses.failed(HOST, "1.1.1.1")
    assert addresses.order(HOST, FOUND[2:])[0] == "2.2.2.2" and addresses.is_bad(HOST, "1.1.1.1")
    assert not addresses.leave(HOST, {"2.2.2.2"}), "there is no other one"
    assert not addresses.is_bad(HOST, "2.2.2.2")
    now = BAD_ADDRESS_S + 1
    assert addresses.order(HOST, FOUND[2:])[0] == "1.1.1.1"
    assert addresses.leave(HOST, {"1.1.1.1"}) and addresses.is_bad(HOST, "1.1.1.1")
    now += SLOW_ADDRESS_S + 1
    assert not addresses.is_bad(HOST, "1.1.1.1")


async def test_all_addresses_of_a_host_are_used(bench: Make, other: Any) -> None:
    one = bench(content(24 * MIB), resolve=resolving("127.0.0.1", "127.0.0.2"))
    second = other(one.server)
    for server in (one.server, second):
        server.manner = lambda _: Manner(rate=8 * MIB)
    one.location = lambda _: one.at(f"http://cdn.example:{one.server.port}/file")
    await one.fetch()
    assert one.holds() and one.server.asked and second.asked


async def test_a_slow_address_is_left_for_the_other_and_nothing_is_lost(bench: Make, other: Any) -> None:
    one = bench(content(48 * MIB), resolve=resolving("127.0.0.1", "127.0.0.2"))
    second = other(one.server)
    one.server.manner = lambda _: Manner(rate=20_000)
    second.manner = lambda _: Manner(rate=2_000_000)
    one.location = lambda _: one.at(f"http://cdn.example:{one.server.port}/file")
    await one.fetch()
    assert one.holds()
    assert 0 < one.server.sent < MIB


async def test_an_address_that_refuses_costs_only_a_try(bench: Make, other: Any) -> None:
    one = bench(content(12 * MIB), resolve=resolving("127.0.0.3", "127.0.0.1"))
    one.location = lambda _: one.at(f"http://cdn.example:{one.server.port}/file")
    await one.fetch()
    assert one.holds() and len(one.located) == 1


async def test_an_address_that_does_not_answer_is_raced(bench: Make) -> None:
    with socket.create_server(("127.0.0.4", 0), backlog=0) as silent:
        full = [socket.socket() for _ in range(3)]  # its queue is full: a further SYN is dropped
        for sock in full:
            sock.setblocking(False)
            sock.connect_ex(silent.getsockname())
        one = bench(content(3 * MIB))
        port = silent.getsockname()[1]
        there = Server(one.server.files, at=("127.0.0.1", port))
        two = bench(content(3 * MIB), resolve=resolving("127.0.0.4", "127.0.0.1"))
        two.location = lambda _: two.at(f"http://cdn.example:{port}/file")
        await two.fetch()
        assert two.holds() and there.asked
        there.close()
        for sock in full:
            sock.close()


def test_a_host_that_holds_back_gets_half_the_connections() -> None:
    hosts, now = Hosts(16), 0.0
    host = hosts.get(HOST)
    told = []

    def run(seconds: float, rate: int) -> None:
        nonlocal now
        for _ in range(int(seconds / 0.2)):
            now += 0.2
            host.share.load = host.share.lanes = host.share.target
            host.received += int(rate * host.share.target * 0.2)
            told.extend(hosts.tick(now, False, 0))

    run(20, 10_000_000)
    assert host.share.target == 16 and not told
    run(COLLAPSE_S + 4, 100_000)
    assert told == [host] and host.throttle.holds_back
    assert (host.share.target, host.share.most) == (8, 8)
    hosts.limit(4)
    assert (host.share.target, host.share.most) == (4, 4)
