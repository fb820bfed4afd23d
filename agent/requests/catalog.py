"""The catalog in force: read again when it changes on disk; a broken one leaves the last good one in force."""

from __future__ import annotations

import os
from collections.abc import Callable

from loguru import logger

from agent.core.catalog import Catalog, parse_catalog


class CatalogFile:
    """A catalog and the file it comes from; `path` gives the one that is configured now."""

    def __init__(self, path: Callable[[], str]) -> None:
        self._path = path
        self.catalog = Catalog()
        self._seen: tuple[str, int, int, int] | None = None
        self._missing = ""  # the path that was reported as missing

    def load(self) -> bool:
        """Read the file if it has changed. True when there is another catalog now. Blocks."""
        path = self._path()
        try:
            info = os.stat(path)
            seen = (path, info.st_ino, info.st_size, info.st_mtime_ns)
            if seen == self._seen:
                return False
            self._seen, self._missing = seen, ""
            with open(path, "rb") as file:
                self.catalog = parse_catalog(file.read())
        except FileNotFoundError:
            if self._missing != path:
                logger.error("the catalog {} is missing; the last good one stays in force", path)
            self._seen, self._missing = None, path
            return False
        except (OSError, ValueError) as error:
            logger.error("cannot use the catalog {}: {}; the last good one stays in force", path, ascii(str(error)))
            return False
        for problem in self.catalog.problems:
            logger.warning("catalog {}: {}", path, problem)
        logger.info("catalog {}: {} models", path, len(self.catalog.entries))
        return True
