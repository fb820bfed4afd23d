"""The bytes of a `.want` file become a `Want`, or one clear error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import orjson
from msgspec import Meta

from agent.core.names import show
from agent.core.schema import build
from agent.errors import Code, WantdError

WANT_SUFFIX = ".want"
PROGRESS_SUFFIX = ".progress"
MAX_BYTES = 1024 * 1024  # a manifest of 10,000 models has some 400 kB
MAX_MODELS = 10_000  # a manifest of one-letter lines could name half a million; no host holds so many
MAX_DEPTH = 32  # the deepest want there is has 3 levels; the rest of JSON's depth is an attack on the parser
DEFAULT_PRIORITY = 5
HINT = (
    "write nothing (the name is the model), one model a line, or JSON like "
    '{"model": "qwen3", "priority": 5}; see docs/protocol.md'
)

NO_LABELS: Mapping[str, str] = MappingProxyType({})  # one for all wants that have none

T = TypeVar("T", bound=msgspec.Struct)
Text = Annotated[str, Meta(min_length=1, max_length=512)]
Priority = Annotated[int, Meta(ge=0, le=9)]
Patterns = Annotated[list[Text], Meta(max_length=200)]
# Names of files to SHA-256 in hex; a repository of more files than that is bound by its weights alone.
Hashes = Annotated[dict[Text, Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{64}\Z")]], Meta(max_length=20_000)]
Labels = Annotated[
    dict[Annotated[str, Meta(max_length=100)], Annotated[str, Meta(max_length=500)]], Meta(max_length=50)
]


class _Item(msgspec.Struct, frozen=True):
    """One model of a want, as JSON spells it."""

    model: Text
    revision: Text | None = None
    files: Patterns = []
    exclude: Patterns = []
    snapshot: Literal["load", "all"] = "load"
    sha256: Hashes = {}


class _Single(_Item, frozen=True):
    """A want for one model."""

    priority: Priority = DEFAULT_PRIORITY
    urgent: bool = False
    not_before: datetime | None = None
    labels: Labels = {}


class _Manifest(msgspec.Struct, frozen=True):
    """A want for many models; each is checked on its own, so that a problem names its place."""

    models: Annotated[list[Any], Meta(min_length=1, max_length=MAX_MODELS)]
    priority: Priority = DEFAULT_PRIORITY
    urgent: bool = False
    not_before: datetime | None = None
    labels: Labels = {}


@dataclass(frozen=True, slots=True)
class WantedModel:
    """One model asked for: the reference's text, and what narrows it.

    `snapshot` is `load` for what a program needs to load the model, or `all` for every file of the commit.
    `sha256` binds files, by their names, to hashes in lower-case hex.
    """

    reference: str
    revision: str | None = None
    files: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    snapshot: str = "load"
    sha256: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Want:
    """A request. `priority` runs 0 (first) to 9 (last), `not_before` is an aware time or None.

    An `urgent` want may pass a window that pauses downloads.
    """

    models: tuple[WantedModel, ...]
    priority: int = DEFAULT_PRIORITY
    not_before: datetime | None = None
    urgent: bool = False
    labels: Mapping[str, str] = field(default_factory=lambda: NO_LABELS)


def parse_want(name: str, data: bytes) -> Want:
    """Read a want. `name` is the file's own name with `.want`.

    Raises `want_too_large` and `want_invalid`.
    """
    if len(data) > MAX_BYTES:
        raise too_large(len(data))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _invalid(f"it is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}") from None
    stripped = text.strip()
    if not stripped:
        return Want((WantedModel(name.removesuffix(WANT_SUFFIX).replace("--", "/")),))
    return _parse_json(stripped) if stripped[0] in "{[" else _parse_lines(stripped)


def too_large(size: int) -> WantdError:
    """The error for a want of `size` bytes."""
    return WantdError(
        Code.WANT_TOO_LARGE,
        f"the want has {size} bytes, more than {MAX_BYTES}",
        "split the manifest into several wants",
    )


def _invalid(why: str) -> WantdError:
    return WantdError(Code.WANT_INVALID, f"the want cannot be read: {why}", HINT)


def _parse_lines(text: str) -> Want:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    models = tuple(WantedModel(line) for line in lines if line)
    if not models:
        raise _invalid("there are only comments in it")
    if len(models) > MAX_MODELS:
        raise _invalid(f"it names {len(models)} models, more than {MAX_MODELS}")
    return Want(models)


def _parse_json(text: str) -> Want:
    if _depth(text) > MAX_DEPTH:
        raise _invalid(f"its JSON is nested more than {MAX_DEPTH} levels deep")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _invalid(f"it begins like JSON but is not: {error}") from None
    if isinstance(value, list):
        value = {"models": value}
    if "models" not in value:
        single = _build(_Single, value, "want")
        return Want((_wanted(single),), single.priority, _aware(single.not_before), single.urgent, single.labels)
    manifest = _build(_Manifest, value, "want")
    models = tuple(_manifest_item(item, at) for at, item in enumerate(manifest.models))
    return Want(models, manifest.priority, _aware(manifest.not_before), manifest.urgent, manifest.labels)


def _manifest_item(item: Any, at: int) -> WantedModel:
    if isinstance(item, str) and item.strip():
        return WantedModel(item.strip())
    if isinstance(item, dict):
        return _wanted(_build(_Item, item, f"models[{at}]"))
    raise _invalid(f"models[{at}] is neither a model reference nor an object: {show(str(item), 60)}")


def _build(kind: type[T], value: dict[str, Any], where: str) -> T:
    built, problems = build(kind, value, where)
    if built is None:
        raise _invalid("; ".join(problems[:5]))
    return built


def _wanted(item: _Item) -> WantedModel:
    hashes = tuple(sorted((name, sha256.lower()) for name, sha256 in item.sha256.items()))
    return WantedModel(item.model.strip(), item.revision, tuple(item.files), tuple(item.exclude), item.snapshot, hashes)


def _aware(time: datetime | None) -> datetime | None:
    """The time in UTC, as every time that wantd writes; one without a zone is taken for UTC."""
    if time is None or time.tzinfo is None:
        return time and time.replace(tzinfo=UTC)
    try:
        return time.astimezone(UTC)
    except OverflowError:  # the last hours of year 9999, west of Greenwich
        raise _invalid(f"not_before: {time.isoformat()} is no time in UTC") from None


def _depth(text: str) -> int:
    """How deep brackets nest, counted without recursion; brackets in strings only make it larger."""
    depth = deepest = 0
    for character in re.sub(r"[^\[\]{}]+", "", text):
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest
