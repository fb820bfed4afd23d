"""The Hub that `wantd demo` runs beside itself, with the repository that the demo downloads."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from agent.embedded_hub.gguf import gguf_chunks
from agent.embedded_hub.repo import HubFile, Repo
from agent.embedded_hub.server import EmbeddedHub

REPO = "bartowski/Qwen_Qwen3-0.6B-GGUF"  # what the catalog has for qwen3
FILE = "Qwen_Qwen3-0.6B-Q4_K_M.gguf"
README = "---\nlicense: apache-2.0\n---\n# Qwen3 0.6B\n\nMade by the embedded Hub: a real format, weights of noise.\n"


def demo_repo(size: int, directory: str) -> Repo:
    """The repository, with a GGUF of about `size` bytes that is written to `directory`."""
    path = os.path.join(directory, FILE)
    with open(path, "wb") as file:
        file.writelines(gguf_chunks(size, name="Qwen3 0.6B"))
    return Repo.of(REPO, {"README.md": README, FILE: HubFile(path=path)})


@contextmanager
def demo_hub(size: int, directory: str) -> Iterator[EmbeddedHub]:
    """A Hub with that repository, served by a thread of its own; its files go to a temporary one below `directory`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="embedded Hub", daemon=True)
    with tempfile.TemporaryDirectory(dir=directory) as files:
        hub = EmbeddedHub([demo_repo(size, files)])
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(hub.start(), loop).result()
            yield hub
        finally:
            asyncio.run_coroutine_threadsafe(hub.stop(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
