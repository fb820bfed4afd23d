"""`wantd models [WORD]`: the models of the catalog, and which of them this host has."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Collection, Iterable

import orjson

from agent.config import catalog_path, load, process_environment
from agent.core.catalog import Catalog, Entry, parse_catalog
from agent.core.target import make_target
from agent.core.want import WantedModel
from agent.core.words import shorten, size
from agent.errors import ConfigError, Exit
from agent.store.layout import Layout

NO_WIDTH = 10_000  # a pipe gets whole lines
EXAMPLES = """\
examples:
  wantd models                 every model of the catalog
  wantd models coder           those with a word in id, repository or description
  wantd models --json | jq -r '.[] | select(.ready) | .id'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which models, and how to show them."""
    parser.add_argument("word", nargs="?", default="", metavar="WORD", help="only models with this word")
    parser.add_argument("--json", action="store_true", help="a JSON array on standard output")


def call(arguments: argparse.Namespace) -> int:
    """Print them. Returns 0, or 1 when none has the word. Raises ConfigError where the catalog cannot be read."""
    config = load(arguments.config, process_environment())
    path = catalog_path(config)
    try:
        with open(path, "rb") as file:
            catalog = parse_catalog(file.read())
    except (OSError, ValueError) as error:
        raise ConfigError([f"cannot read the catalog {path}: {error}"]) from None
    entries = matching(catalog, arguments.word)
    layout = Layout(config.store.dir)
    ready = {entry.id for entry in entries if layout.published(make_target(catalog, "any", WantedModel(entry.id)))}
    if arguments.json:
        options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        sys.stdout.buffer.write(orjson.dumps([_to_json(entry, ready) for entry in entries], option=options))
    elif entries:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else NO_WIDTH
        print("\n".join(lines(entries, ready, width)))
    if not entries:
        near = catalog.near(arguments.word)
        meant = f"; did you mean {' or '.join(near)}?" if near else ""
        print(f"no model of the catalog {path} has {arguments.word!r}{meant}", file=sys.stderr)
        return Exit.FAILURE
    return Exit.OK


def matching(catalog: Catalog, word: str) -> list[Entry]:
    """The entries with a word in them, in the order of their ids."""
    folded = word.lower()
    found = (
        entry
        for entry in catalog.entries.values()
        if any(folded in text.lower() for text in (entry.id, entry.repo, entry.description, *entry.aliases))
    )
    return sorted(found, key=lambda entry: entry.id.lower())


def lines(entries: Iterable[Entry], ready: Collection[str], width: int) -> list[str]:
    """A table for a terminal of that many columns: narrow ones have fewer of them."""
    rows = [("MODEL", "SIZE", "FORMAT", "", "WHAT IT IS")]
    for entry in entries:
        kind = " ".join(part for part in (entry.format, entry.quantization) if part)
        rows.append((entry.id, size(entry.size_bytes), kind, "ready" if entry.id in ready else "", entry.description))
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    widths[0] = min(widths[0], max(width - 12, 8))  # what people type is cut last
    shown = []
    for name, bytes_, kind, state, what in rows:
        cells = [f"{shorten(name, widths[0]):<{widths[0]}}", f"{bytes_:>{widths[1]}}"]
        if width >= 80:
            cells.append(f"{kind:<{widths[2]}}")
        if widths[3]:
            cells.append(f"{state:<{widths[3]}}")
        text = "  ".join([*cells, what])
        shown.append(text.rstrip() if len(text) < width else f"{text[: width - 2]}…")
    return shown


def _to_json(entry: Entry, ready: Collection[str]) -> dict[str, object]:
    return {
        "id": entry.id,
        "repo": entry.repo,
        "description": entry.description,
        "format": entry.format,
        "quantization": entry.quantization,
        "size_bytes": entry.size_bytes,
        "aliases": list(entry.aliases),
        "ready": entry.id in ready,
    }
