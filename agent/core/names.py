"""Untrusted text becomes a type once, here; everything behind this module may trust the type.

A model reference is `ID[:QUANT][@REVISION]`, where ID is a catalog id or `org/name`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NewType

from agent.errors import Code, WantdError

RepoId = NewType("RepoId", str)  # `name` or `org/name`, as the Hub spells it
SafeName = NewType("SafeName", str)  # a relative path that stays inside the directory it is joined to
StoreName = NewType("StoreName", str)  # a model's directory below the store, `/` nests

NAME_MAX_BYTES = 255  # NAME_MAX of Linux file systems, per component
PATH_MAX_BYTES = 1024  # leaves room for the store's own path below PATH_MAX (4,096)
REFERENCE_MAX = 512

_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?\Z")
_QUANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}\Z")
_COMMIT = re.compile(r"[0-9a-f]{7,40}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Reference:
    """What a want names. `model` keeps the spelling of the want; ids compare without regard to case."""

    model: str
    quant: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        quant = f":{self.quant}" if self.quant else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.model}{quant}{revision}"


def show(text: str, limit: int = 120) -> str:
    """Untrusted text made fit for a message or a log line: ASCII, one line, cut."""
    shown = ascii(text)
    return shown if len(shown) <= limit else shown[: limit - 4] + "...'"


def bare(text: str) -> str:
    """As `show`, without the quotes: for fields that hold nothing but the name."""
    return show(text)[1:-1]


def _invalid(text: str, why: str) -> WantdError:
    return WantdError(
        Code.WANT_INVALID,
        f"{show(text)} is not a model reference: {why}",
        "write a catalog id or org/name, optionally with :QUANT and @REVISION, like qwen3 or Qwen/Qwen3-0.6B@main",
        model=bare(text),
    )


def parse_reference(text: str, known: Iterable[str] = ()) -> Reference:
    """Split `ID[:QUANT][@REVISION]`.

    `known` are catalog ids in lower case; one that itself holds `:` or `@` is taken whole.
    Raises `want_invalid` when no reading of the text is a reference.
    """
    text = text.strip()
    if not text or len(text) > REFERENCE_MAX:
        raise _invalid(text, "it is empty" if not text else f"it is longer than {REFERENCE_MAX} characters")
    if _CONTROL.search(text):
        raise _invalid(text, "it holds control characters")
    ids = known if isinstance(known, (set, frozenset, dict)) else set(known)
    if text.lower() in ids:
        return Reference(text)
    rest, at, revision = text.partition("@")
    if at and not is_revision(revision):
        raise _invalid(text, f"{show(revision)} is not a revision")
    model, colon, quant = (rest, "", "") if rest.lower() in ids else rest.rpartition(":")
    if model.lower() not in ids:
        model, colon, quant = rest.partition(":")
    if colon and not is_quant(quant):
        raise _invalid(text, f"{show(quant)} is not a quant")
    if not model or (model.lower() not in ids and not _REPO.match(model)):
        raise _invalid(text, f"{show(model)} is neither a catalog id nor org/name")
    if ".." in model or model.lower().endswith((".git", ".lock")):
        raise _invalid(text, "'..' and the endings .git and .lock are reserved")
    return Reference(model, quant or None, revision or None)


def is_quant(text: str) -> bool:
    """Whether the text may be a quant or a variant of a reference."""
    return bool(_QUANT.match(text))


def is_revision(text: str) -> bool:
    """Whether the text may be a branch, tag, `refs/pr/N` or commit."""
    return bool(_REVISION.match(text)) and ".." not in text and "//" not in text and not text.endswith("/")


def is_commit(text: str) -> bool:
    """Whether the text may be a commit, or the beginning of one."""
    return bool(_COMMIT.match(text))


def is_whole_commit(text: str) -> bool:
    """Whether the text is a commit, all 40 digits of it."""
    return is_commit(text) and len(text) == 40


def repo_id(text: str) -> RepoId:
    """A repository's name as the Hub allows it. Raises `want_invalid` for any other text."""
    if not _REPO.match(text) or ".." in text or "--" in text or text.endswith((".git", ".ipynb")):
        raise _invalid(text, "the Hub allows org/name of letters, digits, '-', '_' and '.', without '..' and '--'")
    return RepoId(text)


def _forbidden(text: str, why: str) -> WantdError:
    return WantdError(
        Code.FORBIDDEN_PATH,
        f"the name {show(text)} is refused: {why}",
        "nothing is written outside the store; report the repository or catalog entry that names it",
        file=bare(text),
    )


def safe_name(text: str) -> SafeName:
    """A file name from a server or the catalog, as a relative path that cannot leave its directory.

    Raises `forbidden_path` for absolute, `..`, empty, NUL, control, backslash, over-long and reserved names.
    """
    if not text or text.startswith("/"):
        raise _forbidden(text, "it is empty" if not text else "it is absolute")
    if _CONTROL.search(text):
        raise _forbidden(text, "it holds NUL, control or unpaired surrogate characters")
    if "\\" in text:
        raise _forbidden(text, "it holds a backslash")
    if len(text.encode()) > PATH_MAX_BYTES:
        raise _forbidden(text, f"it is longer than {PATH_MAX_BYTES} bytes")
    parts = text.split("/")
    for part in parts:
        if part in ("", ".", ".."):
            raise _forbidden(text, "it has an empty, '.' or '..' component")
        if len(part.encode()) > NAME_MAX_BYTES:
            raise _forbidden(text, f"a component is longer than {NAME_MAX_BYTES} bytes")
    # A record in a folder of the repository would publish a model `ID/folder` that nobody verified.
    if any(part.lower().startswith(".wantd") for part in parts):
        raise _forbidden(text, "the beginning .wantd is reserved for the agent")
    if parts[0].lower().startswith((".locks", ".partial")):
        raise _forbidden(text, "the beginning .locks or .partial is reserved for the agent")
    return SafeName(text)


def check_collisions(names: Iterable[str]) -> None:
    """Refuse a set of names that cannot lie side by side on every file system.

    Raises `forbidden_path` for duplicates, names equal but for case, and a file that is also a directory.
    """
    seen: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name in names:
        folded = name.casefold()
        if folded in seen:
            other = seen[folded]
            raise _forbidden(name, "it is listed twice" if other == name else f"it collides with {show(other)}")
        seen[folded] = name
        at = folded.find("/")
        while at != -1:
            folders[folded[:at]] = name
            at = folded.find("/", at + 1)
    for folder, inside in folders.items():
        if folder in seen:
            raise _forbidden(seen[folder], f"it is a file, and a directory in {show(inside)}")


def store_name(model: str) -> StoreName:
    """llmlb's rule for a model's directory: lower case, `[a-z0-9-_.]` kept, `/` nests, anything else `_`.

    Raises `forbidden_path` for an id that would name the store itself or one of the agent's own directories.
    """
    folded = re.sub(r"[^a-z0-9\-_./]", "_", model.lower())
    for part in folded.split("/"):
        if not part or part.startswith(".") or len(part) > NAME_MAX_BYTES:
            raise _forbidden(model, "no part of a model id may be empty, begin with '.' or be over 255 characters")
    return StoreName(folded)


def revision_suffix(revision: str) -> str:
    """How a pinned revision shows in a directory name: 12 digits of a commit, else the name itself.

    A name that the store's alphabet cannot hold gets six digits of its hash, so that two never meet.
    """
    if is_commit(revision):
        return revision[:12]
    kept = re.sub(r"[^a-z0-9\-_.]", "_", revision.lower())
    return kept if kept == revision else f"{kept[:80]}-{hashlib.sha256(revision.encode()).hexdigest()[:6]}"
