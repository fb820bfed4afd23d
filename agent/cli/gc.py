"""`wantd gc`: removes what is due (unused models, what is above the quota, expired partials, leavings of crashes)."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

import orjson

from agent.cli.room import StoreRoom
from agent.config import load, process_environment
from agent.core.names import StoreName
from agent.core.retention import Reason, due, expired
from agent.core.words import size
from agent.errors import Exit, WantdError
from agent.store.room.census import used_bytes
from agent.store.room.leases import Leased
from agent.store.room.removal import unfinished
from agent.store.sweep import debris, leftovers, remove, remove_unfinished

IN_WORDS = {
    Reason.UNUSED: "unused for store.keep_days",
    Reason.QUOTA: "the store is above store.max_bytes",
    Reason.DISK: "the disk is short of store.min_free_bytes",
}

EXAMPLES = """\
examples:
  wantd gc --dry-run
  WANTD_STORE__KEEP_DAYS=30 wantd gc   also what was not used for a month
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How to do it."""
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def call(arguments: argparse.Namespace) -> int:
    """Find what is due, remove it, say so."""
    room = StoreRoom(load(arguments.config, process_environment()))
    remover = None if arguments.dry_run else room.remover()
    if remover:
        for name in unfinished(room.layout):
            remover.finish(name)
        remove_unfinished(room.layout, room.locks)
        room.view().mend()
    counted, gone, going = room.census(), list[dict[str, Any]](), list[StoreName]()
    for model, why in _due(room):
        name = StoreName(model)
        going.append(name)
        freed = counted.frees(going) - counted.frees(going[:-1])
        if remover:
            try:
                freed = remover.remove(name).freed_bytes
            except (Leased, WantdError) as error:
                print(f"wantd: {name} stays: {error}", file=sys.stderr)
                continue
        gone.append({"model": model, "reason": why, "freed_bytes": freed})
    partials = _partials(room, dry_run=arguments.dry_run)
    freed = sum(model["freed_bytes"] for model in gone) + sum(partial["freed_bytes"] for partial in partials)
    if arguments.json:
        value = {"dry_run": arguments.dry_run, "freed_bytes": freed, "models": gone, "partials": partials}
        sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        return Exit.OK
    would = "would be removed" if arguments.dry_run else "removed"
    for removed in gone:
        print(f"{removed['model']}: {would}, {size(removed['freed_bytes'])} ({IN_WORDS[removed['reason']]})")
    for partial in partials:
        print(f"partial {partial['key']}: {would}, {size(partial['freed_bytes'])}")
    if not gone and room.config.store.evict == "never" and not room.config.store.keep_days:
        print('no model is ever due: set store.keep_days, or store.evict to "lru" with store.max_bytes')
    print(f"{size(freed)} {'would be ' if arguments.dry_run else ''}freed")
    return Exit.OK


def _due(room: StoreRoom) -> list[tuple[str, Reason]]:
    store, space = room.config.store, room.space()
    evicts = store.evict == "lru"
    over = max(used_bytes(room.layout) - store.max_bytes, 0) if evicts and store.max_bytes else 0
    short = space.short_of() if evicts else 0
    return [(m.name, why) for m, why in due(room.census(), room.now(), store.keep_days * 86400, over, short)]


def _partials(room: StoreRoom, *, dry_run: bool) -> list[dict[str, Any]]:
    """Those that nothing has touched for `store.keep_partials_days`, and those whose bytes are published."""
    found = expired(leftovers(room.layout), (), room.now(), room.config.store.keep_partials_days * 86400)
    found += [left for left in debris(room.layout, room.inventory) if left not in found]
    gone = []
    for left in found:
        freed = sum(_frees(path) for path in left.paths)
        if dry_run or remove(left, room.layout, room.locks):
            gone.append({"key": left.key, "freed_bytes": freed})
    return gone


def _frees(path: str) -> int:
    try:
        info = os.lstat(path)
    except OSError:
        return 0
    return info.st_blocks * 512 if info.st_nlink == 1 else 0
