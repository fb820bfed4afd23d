"""A fleet of hosts: listings from the Hub, bytes from a cache that the hosts share, and the Hub where that fails.

The fleet is whatever answers `GET {fleet.url}/{repo}/resolve/{commit}/{file}` with ranges: the door of a ring of nginx
(`wantd fleet nginx`), Dragonfly's registry mirror, any caching mirror (docs/fleet.md). It is asked with GET alone,
since Dragonfly passes a HEAD on, and never with a token. Nothing that it says is definite, and nothing is trusted: each
host has size and hash of every file from the Hub's own listing, unless `fleet.listings` says otherwise.

    listing          the Hub, or the fleet's copy of it first
    locate           gated, private, not listed here     the Hub
                     bad or missing in the fleet lately  the Hub
                     door open                           the fleet
                     door shut                           wait, a random time, and look again: else the Hub
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from urllib.parse import quote, urlsplit

from cachetools import LRUCache, TLRUCache
from loguru import logger

from agent.clock import Clock
from agent.core.access import AddressCheck, PlainHttp
from agent.core.names import SafeName
from agent.core.ports import Source
from agent.core.remote import Listing, Location, Query, RemoteFile
from agent.core.retry import (
    DOOR_CONNECT_S,
    DOOR_OPEN_S,
    DOOR_SHUT_S,
    FLEET_STRIKES,
    UNUSABLE_FILE_S,
    WRONG_FILE_S,
)
from agent.errors import Code, WantdError
from agent.net.redirect import DEFAULT_PORTS

NAME = "fleet"
REMEMBERED = 4096  # files that the fleet gave, or could not give; more than are ever in motion
LISTED_MAX = 100_000  # files of the latest listings, some 40 MB at most
_WRONG = frozenset({Code.CHECKSUM_MISMATCH, Code.HUB_PROTOCOL})

_Key = tuple[str, str, str]  # repository, commit, file


class Door:
    """Whether anything listens at the fleet's address. One look serves all who ask within `DOOR_OPEN_S`.

    A door that is shut is looked at once more after a random part of `patience_s`: when it opens again, its hosts must
    not have gone to the Hub all at the same moment. While it stays shut it is left alone for `DOOR_SHUT_S`.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[bool]],
        clock: Clock,
        patience_s: Callable[[], float],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._patience_s = patience_s
        self._chance = chance
        self._looking = asyncio.Lock()
        self._open_until = self._shut_until = 0.0

    async def is_open(self) -> bool:
        """Look, waiting for up to `patience_s` seconds when it is shut."""
        async with self._looking:
            now = self._clock.monotonic()
            if now < self._open_until or now < self._shut_until:
                return now < self._open_until
            is_open = await self._connect()
            if not is_open:
                await self._clock.sleep(self._chance() * self._patience_s())
                is_open = await self._connect()
            now = self._clock.monotonic()
            if is_open:
                self._open_until = now + DOOR_OPEN_S
            else:
                self._shut_until = now + DOOR_SHUT_S
                logger.warning("the fleet's door is shut; asking the Hub directly for {:g} s", DOOR_SHUT_S)
            return is_open


def connects_to(url: str) -> Callable[[], Awaitable[bool]]:
    """A look at the door at `url`: whether a TCP connection to it comes about within `DOOR_CONNECT_S`."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]

    async def connect() -> bool:
        try:
            async with asyncio.timeout(DOOR_CONNECT_S):
                _, writer = await asyncio.open_connection(host, port)
        except OSError:  # TimeoutError is one
            return False
        writer.close()
        return True

    return connect


class FleetSource:
    """The bytes from the fleet at `url` (no trailing slash) where that is right, everything else from `behind`.

    One request asks for one slice: nginx (1.22, ngx_http_slice_filter_module) goes on with the next slice when the
    member that sends one dies in the middle of it, so that all that follows stands at the wrong place.

    `listings` is asked for listings first where the fleet's copies are trusted; `gated` says that every host of the
    fleet may read what the Hub gives to some accounts only.
    """

    def __init__(
        self,
        url: str,
        door: Door,
        rule: AddressCheck,
        behind: Source,
        clock: Clock,
        *,
        slice_bytes: int,
        listings: Source | None = None,
        gated: bool = False,
    ) -> None:
        self._url = url
        self._door = door
        self._rule = rule
        self._behind = behind
        self._slice_bytes = slice_bytes
        self._listings = listings
        self._gated = gated
        self._listed: LRUCache[tuple[str, str], dict[str, RemoteFile]] = LRUCache(LISTED_MAX, lambda d: max(len(d), 1))
        self._given: LRUCache[_Key, int] = LRUCache(REMEMBERED)  # files that the fleet was to give: failures in a row
        # Files that are asked for behind the fleet, each for its own time.
        self._passed: TLRUCache[_Key, float, float] = TLRUCache(
            REMEMBERED, lambda _, seconds, now: now + seconds, timer=clock.monotonic
        )

    @property
    def name(self) -> str:
        """See `core.ports.Source`."""
        return self._behind.name

    async def listing(self, query: Query) -> Listing:
        """From behind; the fleet's copy first where it is trusted. See `core.ports.Source`."""
        listing = await self._from_fleet(query) or await self._behind.listing(query)
        if self._gated or not listing.restricted:
            self._listed[query.repo.lower(), listing.commit] = {file.name: file for file in listing.files}
        return listing

    async def locate(self, query: Query, name: SafeName, failed: WantdError | None = None) -> Location:
        """In the fleet where that is right and possible. See `core.ports.Source`."""
        key = (query.repo, query.revision, name)
        strikes = self._given.pop(key, None)
        if failed is None:
            strikes = 0
        elif strikes is not None:
            strikes += 1
            self._note(key, strikes, failed)
            failed = None  # those behind had no part in it
        file = self._listed.get((query.repo.lower(), query.revision), {}).get(name)
        if failed is not None or file is None or key in self._passed or not await self._door.is_open():
            return await self._behind.locate(query, name, failed)
        self._given[key] = strikes or 0
        # Encoded as the Hub's own tools do: one file has one URL, and so one place in the fleet's cache.
        url = f"{self._url}/{query.repo}/resolve/{quote(query.revision, safe='')}/{quote(name, safe='/')}"
        return Location(
            NAME,
            PlainHttp(url, self._rule),
            file.sha256 or file.git_sha1,
            file.size,
            sha256=file.sha256,
            span_bytes=self._slice_bytes,
        )

    def _note(self, key: _Key, strikes: int, failed: WantdError) -> None:
        """The fleet failed with a file, `strikes` times in a row now: is it passed over now?"""
        if failed.code in _WRONG:
            self._passed[key] = WRONG_FILE_S
        elif strikes >= FLEET_STRIKES:
            self._passed[key] = UNUSABLE_FILE_S
        if key in self._passed:
            logger.warning("{}: {} from the Hub, not from the fleet: {}", key[0], ascii(key[2]), failed.message)

    async def _from_fleet(self, query: Query) -> Listing | None:
        if self._listings is None or not await self._door.is_open():
            return None
        try:
            return replace(await self._listings.listing(query), source=self._behind.name)
        except WantdError as error:  # none of them is definite: the Hub knows
            logger.debug("{}: no listing from the fleet: {}", query.repo, error.message)
            return None
