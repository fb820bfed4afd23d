"""A model is removed and published while eight processes open, map and open it again: none ever sees a part of it."""

from __future__ import annotations

import mmap
import os
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from agent.core.names import StoreName
from agent.store.hub_view import HubView
from agent.store.inventory import Inventory
from agent.store.layout import Layout
from agent.store.locks import Locks
from agent.store.room.removal import Remover
from tests.store.builders import MODES, Model

READERS = 8
ROUNDS = 25
FILES = {f"model-{number}.safetensors": bytes([number]) * 300_000 for number in range(6)}


def read_until_told(directory: str, ready: Any, over: Any, results: Any) -> None:
    """Look into the directory again and again: what is listed must be the whole model, and each file its own bytes."""
    whole, none, parts = 0, 0, []
    kept: list[tuple[str, mmap.mmap]] = []
    ready.release()
    while not over.is_set():
        try:
            listed = sorted(name for name in os.listdir(directory) if name.endswith(".safetensors"))
        except FileNotFoundError:
            none += 1
            continue
        if listed != sorted(FILES):
            parts.append(f"listed {listed}")
        opened = []
        try:
            for name in listed:
                with open(f"{directory}/{name}", "rb") as file:
                    opened.append((name, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)))
        except FileNotFoundError:
            none += 1
        else:
            whole += 1
        for name, mapped in [*opened, *kept]:  # those of the last round may have been removed since
            if mapped[:] != FILES[name]:
                parts.append(f"{name} has other bytes")
        kept = opened
    results.put((whole, none, parts))


def test_none_of_eight_readers_sees_a_part_of_a_model(
    layout: Layout, tmp_path: Path, processes: ForkServerContext
) -> None:
    inventory = Inventory(layout)
    remover = Remover(layout, Locks(), inventory, HubView(str(tmp_path / "hub"), layout, inventory, MODES))
    model = Model("qwen3", FILES)
    ready, over, results = processes.Semaphore(0), processes.Event(), processes.Queue()
    directory = layout.directory(StoreName("qwen3"))
    readers = [
        processes.Process(target=read_until_told, args=(directory, ready, over, results)) for _ in range(READERS)
    ]
    for reader in readers:
        reader.start()
    try:
        for _ in readers:
            assert ready.acquire(timeout=60)
        for _ in range(ROUNDS):
            model.publish(layout)
            removed = remover.remove(StoreName("qwen3"))
            assert removed.model == "qwen3"
            assert not os.path.exists(directory)
    finally:
        over.set()
        found = [results.get(timeout=60) for _ in readers]
        for reader in readers:
            reader.join(60)
    assert [parts for _, _, parts in found if parts] == []
    assert sum(none for _, none, _ in found) > 0
