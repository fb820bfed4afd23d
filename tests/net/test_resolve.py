"""Look-ups of names: in threads of their own, so many at a time, and nobody else waits for one that hangs."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from agent.core.limits import LOOKUPS_AT_ONCE
from agent.net.resolve import Lookups


class Resolver:
    """A system's resolver that answers when it is told to."""

    def __init__(self) -> None:
        self.answer = threading.Event()
        self.asked = 0

    def __call__(self, host: str, port: int, *_: object) -> list[tuple[object, ...]]:
        self.asked += 1
        self.answer.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]


async def test_a_name_becomes_addresses() -> None:
    found = await Lookups().resolve("127.0.0.1", 80, socket.AF_INET)
    assert [(entry["host"], entry["port"]) for entry in found] == [("127.0.0.1", 80)]


async def test_an_address_of_one_interface_keeps_its_scope() -> None:
    def resolver(host: str, port: int, *_: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", port, 0, 2))]

    assert (await Lookups(resolver).resolve("x", 80, socket.AF_INET6))[0]["host"] == "fe80::1%2"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 70 + ".example", "a\0b"])
async def test_a_name_that_is_none_is_an_error_of_the_network(host: str) -> None:
    with pytest.raises(OSError):
        await Lookups().resolve(host, 80, socket.AF_INET)


async def test_look_ups_that_hang_leave_the_executor_free() -> None:
    resolver = Resolver()
    lookups = Lookups(resolver)
    tasks = [asyncio.create_task(lookups.resolve(f"h{n}", 80, socket.AF_INET)) for n in range(LOOKUPS_AT_ONCE + 5)]
    try:
        async with asyncio.timeout(20):
            while resolver.asked < LOOKUPS_AT_ONCE:
                await asyncio.sleep(0.01)
            assert await asyncio.to_thread(lambda: "free") == "free"
        assert resolver.asked == LOOKUPS_AT_ONCE
    finally:
        resolver.answer.set()
    assert len(await asyncio.gather(*tasks)) == LOOKUPS_AT_ONCE + 5


async def test_a_look_up_that_nobody_waits_for_keeps_its_place_until_it_ends() -> None:
    resolver = Resolver()
    lookups = Lookups(resolver)
    tasks = [asyncio.create_task(lookups.resolve(f"h{n}", 80, socket.AF_INET)) for n in range(LOOKUPS_AT_ONCE)]
    try:
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        last = asyncio.create_task(lookups.resolve("last", 80, socket.AF_INET))
        await asyncio.to_thread(lambda: None)
        assert resolver.asked == LOOKUPS_AT_ONCE
    finally:
        resolver.answer.set()
    async with asyncio.timeout(20):
        assert await last
