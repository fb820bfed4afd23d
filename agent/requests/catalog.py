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
        self._seen: tuple[str, int, int, int, int] | None = None  # what was there at the last look, good or not
        self._problem = ""  # what was said last of a file that cannot be used

    def load(self) -> bool:
        """Read the file if it has changed. True when there is another catalog now. Blocks."""
        path, seen = self._path(), None
        try:
            info = os.stat(path)
            # The time of the last change to the inode as well: permissions may have been mended.
            seen = (path, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
            if seen == self._seen:
                return False
            with open(path, "rb") as file:
                catalog = parse_catalog(file.read())
        except FileNotFoundError:
            self._report(seen, f"the catalog {path} is missing")
            return False
        except (OSError, ValueError) as error:
            self._report(seen, f"cannot use the catalog {path}: {str(error)!a}")
            return False
        self.catalog, self._seen, self._problem = catalog, seen, ""
        for problem in catalog.problems:
            logger.warning("catalog {}: {}", path, problem)
        logger.info("catalog {}: {} models", path, len(catalog.entries))
        return True

    def _report(self, seen: tuple[str, int, int, int, int] | None, problem: str) -> None:
        """Say it once for each change of the file."""
        if seen != self._seen or problem != self._problem:
            logger.error("{}; the last good one stays in force", problem)
        self._seen, self._problem = seen, problem
