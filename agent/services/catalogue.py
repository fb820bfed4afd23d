"""The catalogue in force: read again when it changes on disk; a broken one leaves the last good one in force."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from loguru import logger

from agent.core.catalog import Catalog, parse_catalog


class CatalogueFile:
    """A catalogue and the file it comes from."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.catalog = Catalog()
        self._seen: tuple[int, int, int] | None = None

    def load(self) -> bool:
        """Read the file if it has changed. True when there is another catalogue now. Blocks."""
        try:
            info = os.stat(self.path)
            seen = (info.st_ino, info.st_size, info.st_mtime_ns)
            if seen == self._seen:
                return False
            self._seen = seen
            with open(self.path, "rb") as file:
                self.catalog = parse_catalog(file.read())
        except FileNotFoundError:
            if self._seen is not None or not self.catalog.entries:
                logger.error("the catalogue {} is not there; the last good one stays in force", self.path)
            self._seen = None
            return False
        except (OSError, ValueError) as error:
            logger.error("the catalogue {} cannot be used: {}; the last good one stays", self.path, ascii(str(error)))
            return False
        for problem in self.catalog.problems:
            logger.warning("catalogue {}: {}", self.path, problem)
        logger.info("catalogue {}: {} models", self.path, len(self.catalog.entries))
        return True

    async def check(self, on_change: Callable[[], Awaitable[None]]) -> None:
        """Read it again if it has changed, and tell."""
        if await asyncio.to_thread(self.load):
            await on_change()
