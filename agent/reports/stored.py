"""What the store holds, model by model, as `wantd ls` shows it: sizes, last uses, who keeps it, what would go next."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from agent.core.retention import Census
from agent.core.words import timestamp
from agent.store.inventory import Entry
from agent.store.layout import Layout


@dataclass(frozen=True, slots=True)
class StoredModel:
    """`bytes` is the sum of its files, `frees_bytes` what its removal alone would free on the disk.

    `name` is its directory below the store. `wanted_by` are the paths of wants; `goes` is its place in the order in
    which models are removed to make room, from 1, None for one that stays.
    """

    model: str
    name: str
    path: str
    bytes: int
    frees_bytes: int
    last_used: str | None
    wanted_by: tuple[str, ...]
    leased: bool
    in_use: bool
    goes: int | None
    commit: str
    source: str

    def to_json(self) -> dict[str, Any]:
        """As `wantd ls --json` prints it."""
        return asdict(self)


def stored(layout: Layout, entries: Iterable[Entry], census: Census, now: float) -> list[StoredModel]:
    """Every model of the census, by name. `now` is in seconds since the epoch."""
    order = {model.name: place for place, model in enumerate(census.next_to_go(now), 1)}
    found = []
    for entry in entries:
        name, record = os.path.relpath(entry.directory, layout.root), entry.record
        if model := census.models.get(name):
            used = min(model.last_used, now)
            found.append(
                StoredModel(
                    model=record.model,
                    name=name,
                    path=f"{entry.directory}/{record.opens}" if record.opens else entry.directory,
                    bytes=sum(file.size for file in record.files),
                    frees_bytes=census.frees([name]),
                    last_used=timestamp(datetime.fromtimestamp(used, UTC)) if used > 0 else None,
                    wanted_by=model.wanted_by,
                    leased=model.leased,
                    in_use=model.in_use,
                    goes=order.get(name),
                    commit=record.commit,
                    source=record.source,
                )
            )
    return sorted(found, key=lambda model: model.name)
