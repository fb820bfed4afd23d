"""Which address of a host is connected to next, and which one is left alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import zip_longest

SLOW_SHARE = 0.2  # of the rate of a connection to the best address: below, an address is left alone


def in_order(found: Sequence[tuple[int, str]], bad_until: Mapping[str, float], used: Mapping[str, int]) -> list[str]:
    """The addresses of a host, given as (family, address) in the resolver's order, in the order to try them.

    Families take turns, the first one first (RFC 8305 section 4). Of the good ones, the one that was used longest ago
    leads, by the numbers in `used`, so that all of them are used. Those that are bad until some time come last: where
    all are, there is no other choice.
    """
    families: dict[int, list[str]] = {}
    for family, address in dict.fromkeys(found):
        families.setdefault(family, []).append(address)
    turns = [address for turn in zip_longest(*families.values()) for address in turn if address is not None]
    return sorted(turns, key=lambda address: (bad_until.get(address, 0.0), used.get(address, 0)))


def slow_ones(speeds: Mapping[str, Sequence[float]]) -> set[str]:
    """The addresses whose connections are far slower than those of the best; `speeds` are bytes per second of each."""
    means = {address: statistics.fmean(each) for address, each in speeds.items() if each}
    best = max(means.values(), default=0.0)
    return {address for address, mean in means.items() if mean < best * SLOW_SHARE}
