"""What can be asked for where a selection failed, each ready to paste: a reference, or the JSON of a want.

Every choice is tried before it is shown.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any

from agent.core.names import bare, is_quant
from agent.core.selection.code import PLAIN_FORMATS, extension
from agent.core.selection.gguf import gguf_sets, quant_of
from agent.core.selection.no_match import CHOICES_SHOWN, NoMatch, listed
from agent.core.selection.patterns import exactly, numbered
from agent.core.selection.tree import Tree
from agent.core.selection.weights import set_names, variants
from agent.core.target import Selection, Target, with_all, with_files, with_quant
from agent.errors import Code, WantdError

# What trying may cost: each choice that is tried goes through all files of the repository, in some 2 us for each of
# them.
TRIES_MAX = 2 * CHOICES_SHOWN
FILES_TRIED_MAX = 200_000
CLOSE_AMONG, CLOSE_LENGTH = 500, 100  # names, characters: comparing that much takes 0.1 s

_COMPANION_ENDINGS = ("json", "txt", "model", "jinja", "tiktoken", "spm")
_OTHER_FORMATS = PLAIN_FORMATS - {"safetensors", "gguf"}

Candidates = Iterator[tuple[str, Selection]]


def explain(miss: NoMatch, target: Target, commit: str, tree: Tree, works: Callable[[Selection], bool]) -> WantdError:
    """The error for a selection that failed, with what can be asked for instead.

    `works` says whether there would be a plan for another selection of the same repository.
    """
    tries = max(2, min(TRIES_MAX, FILES_TRIED_MAX // (len(tree.files) + 1)))
    everything = _want(target, snapshot="all"), with_all(target.plain)
    candidates = chain(islice(_candidates(target, tree, works), tries), [everything])
    found = list(islice((text for text, selection in candidates if works(selection)), CHOICES_SHOWN + 1))
    more = " and more" if len(found) > CHOICES_SHOWN else ""
    choices = f"ask for one of these: {', '.join(found[:CHOICES_SHOWN])}{more}" if found else ""
    repo = target.selection.repo
    if miss.code is Code.FORBIDDEN_FORMAT:
        formats = json.dumps(sorted({extension(name) for name in miss.names}))
        message, hint = miss.why, f"leave it out with 'exclude', or allow it with policy.formats = {formats}"
    elif miss.code is Code.AMBIGUOUS_FILE:
        message = f"it is not clear which file of {repo} is meant: {miss.why}: {listed(miss.names)}"
        quants = any(not choice.startswith("{") for choice in found)
        hint = f"{'add :QUANT to the reference, or ' if quants else ''}name one with 'files'"
    else:
        message = f"no match in {repo} at {commit[:12]}: {miss.why}"
        hint = "check the quant, the file names and the catalog entry"
    return WantdError(
        miss.code,
        message,
        f"{hint}; {choices}" if choices else hint,
        file=bare(miss.names[0]) if miss.code is Code.FORBIDDEN_FORMAT else None,
    )


def _candidates(target: Target, tree: Tree, works: Callable[[Selection], bool]) -> Candidates:
    """What may be asked for, the likeliest first."""
    plain = target.plain
    yield target.paste(), plain
    yield from ((target.paste(tag), with_quant(plain, tag)) for tag in _tags(tree))
    for name in _close(target.selection.files, tree):
        yield _want(target, files=(exactly(name),)), with_files(plain, (exactly(name),), ())
    if not works(plain):
        for patterns in chain(_untagged(tree), _sets(tree), _other_formats(tree)):
            files, exclude = tuple(patterns), () if any("/" in pattern for pattern in patterns) else ("*/*",)
            if not any("/" in file.name for file in tree.files):
                exclude = ()
            yield _want(target, files=files, exclude=exclude), with_files(plain, files, exclude)


def _close(patterns: Iterable[str], tree: Tree) -> list[str]:
    """The file names that look most like patterns that may be misspelled."""
    names = [file.name for file in tree.files[:CLOSE_AMONG]]
    close = (difflib.get_close_matches(pattern[:CLOSE_LENGTH], names, n=2) for pattern in islice(patterns, 5))
    return list(dict.fromkeys(chain.from_iterable(close)))


def _want(target: Target, **more: Any) -> str:
    return json.dumps({"model": target.paste(), **{key: value for key, value in more.items() if value}})


def _tags(tree: Tree) -> Iterator[str]:
    """Each `:QUANT` that picks one GGUF, and each `:VARIANT` that some weights have."""
    yield from (tag for _, tag in _quants(tree) if tag)
    known = dict.fromkeys(variant for folder in tree.folders for variant in variants(tree, folder))
    yield from filter(is_quant, known)


def _untagged(tree: Tree) -> Iterator[list[str]]:
    """Patterns for the GGUF files that no quant picks."""
    yield from ([numbered(name)] for name, tag in _quants(tree) if not tag)


def _quants(tree: Tree) -> list[tuple[str, str | None]]:
    """A file of each GGUF set, as many as may be tried, and the quant that picks that set."""
    sets = gguf_sets(tree)
    names = sorted(sets)
    return [(sets[name].name, quant_of(name, names)) for name in names[:TRIES_MAX]]


def _sets(tree: Tree) -> Iterator[list[str]]:
    """Patterns for each set of safetensors and its companions."""
    for folder in tree.folders:
        for names in set_names(tree, folder):
            yield list(dict.fromkeys([*map(numbered, names), *_companion_patterns(tree, folder)]))


def _other_formats(tree: Tree) -> Iterator[list[str]]:
    """Patterns for each model in a format that no rule chooses, with its companions: an ONNX file and its data."""
    for file in tree.files:
        if extension(file.name) in _OTHER_FORMATS:
            folder = file.name.rpartition("/")[0]
            data = [other.name for other in tree.inside(folder) if other.name.startswith(f"{file.name}_data")]
            data += [other.name for other in tree.inside(folder) if other.name == f"{file.name}.data"]
            yield [exactly(file.name), *map(exactly, data), *_companion_patterns(tree, folder)]


def _companion_patterns(tree: Tree, folder: str) -> Iterable[str]:
    """`*.json` and the like, for those of which the folder has any, or else the top."""
    for place in dict.fromkeys((folder, "")):
        there = {extension(file.name) for file in tree.inside(place)}
        if endings := [ending for ending in _COMPANION_ENDINGS if ending in there]:
            return [f"{exactly(place)}/*.{ending}" if place else f"*.{ending}" for ending in endings]
    return []
