"""`wantd freeze [MODEL…]`: prints a manifest that brings the same bytes to another host, or fails there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson

from agent.config import catalog_path, load, process_environment
from agent.core.catalog import Catalog, parse_catalog
from agent.core.names import is_whole_commit, parse_reference
from agent.core.target import make_target
from agent.core.want import WantedModel
from agent.errors import Exit, WantdError
from agent.store.layout import Layout, Record, read_record

EXAMPLES = """\
examples:
  wantd freeze > host.want              every model of this host
  wantd freeze qwen3 gemma3 > two.want
  scp host.want other:/var/spool/wantd/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which models."""
    parser.add_argument("models", nargs="*", metavar="MODEL", help="catalog id, org/name or directory of the store")


def call(arguments: argparse.Namespace) -> int:
    """Print the manifest. Returns 0, or 1 where a model is not in the store or cannot be frozen."""
    config = load(arguments.config, process_environment())
    try:
        with open(catalog_path(config), "rb") as file:
            catalog = parse_catalog(file.read())
    except (OSError, ValueError):
        catalog = Catalog()  # what a model's want said is then all that is known of it
    layout = Layout(config.store.dir)
    asked = {model.lower() for model in arguments.models}
    missing = set(asked)
    models, problems = [], []
    for names, record in sorted(_records(layout), key=lambda pair: pair[0][0]):
        if asked and asked.isdisjoint(names):
            continue
        missing -= set(names)
        if not is_whole_commit(record.commit):
            problems.append(f"{record.model}: its source told no commit, so it cannot be asked for again")
        else:
            models.append(frozen(record, catalog))
    problems += [f"{name}: not in the store {layout.root}; see `wantd status`" for name in sorted(missing)]
    for problem in problems:
        print(f"wantd: {problem}", file=sys.stderr)
    if models:
        manifest = orjson.dumps({"models": models}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        sys.stdout.buffer.write(manifest)
    return Exit.FAILURE if problems else Exit.OK


def frozen(record: Record, catalog: Catalog) -> dict[str, Any]:
    """A published model as one entry of a manifest: at its commit, every file bound to its SHA-256."""
    reference = replace(parse_reference(record.model, catalog.by_name), revision=None)
    entry: dict[str, Any] = {"model": str(reference), "revision": record.commit}
    had = record.selection
    try:
        plain = make_target(catalog, "any", WantedModel(str(reference))).plain
        own_files, own_exclude = list(plain.files), list(plain.exclude)
    except WantdError:
        own_files, own_exclude = [], []
    if isinstance(files := had.get("files"), list) and files != own_files:
        entry["files"] = files
    exclude = had.get("exclude")
    if isinstance(exclude, list) and (narrowed := [pattern for pattern in exclude if pattern not in own_exclude]):
        entry["exclude"] = narrowed
    if had.get("snapshot") == "all":
        entry["snapshot"] = "all"
    entry["sha256"] = {file.name: file.sha256 for file in record.files}
    return entry


def _records(layout: Layout) -> Iterator[tuple[list[str], Record]]:
    """Every record, with the names that people may use for it, its directory in the store first."""
    for directory, _ in layout.record_places():
        if record := read_record(directory):
            name = directory.removeprefix(f"{layout.root}/")
            yield [name, record.model.lower(), record.repo.lower()], record
