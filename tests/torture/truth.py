"""What a true Hub answers, in the words of the adversary: the ground that its lies stand on.

An answer is a generator: bytes are sent as they are, a float is a pause in seconds; at its end the connection closes.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

LARGE = 1_300_000  # bytes: comes by ranges
SMALL = 40_000  # bytes: comes in one piece
COMMIT = "c" * 40
FILE = "w-Q4_K_M.gguf"

Sent = bytes | float


@cache
def content_of(repo: str) -> bytes:
    """The model of a repository: no two are alike, or the store would link what it has."""
    return random.Random(repo).randbytes(SMALL if repo.endswith("-small") else LARGE)


@dataclass(frozen=True)
class Asked:
    """One request. `number` counts those of this repository at this step, from 0."""

    method: str
    repo: str
    path: str
    headers: Mapping[str, str]
    number: int
    hub: str
    cdn: str
    elsewhere: str = ""  # another server, where a case has one

    @property
    def content(self) -> bytes:
        return content_of(self.repo)

    @property
    def range(self) -> tuple[int, int] | None:
        """First byte, and one behind the last."""
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        return (int(match[1]), int(match[2]) + 1) if match else None


Lie = Callable[[Asked], Iterator[Sent]]


def answer(status: int, body: bytes = b"", length: int | None = -1, **headers: str) -> Iterator[Sent]:
    """An answer with its head; `length` None leaves Content-Length out, -1 tells the truth."""
    yield head(status, len(body) if length == -1 else length, **headers)
    yield body


def head(status: int, length: int | None, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", "Connection: close"]
    lines += [f"Content-Length: {length}"] if length is not None else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


def endless(first: bytes, filler: bytes = bytes(65536)) -> Iterator[Sent]:
    """A beginning, then the same for ever."""
    yield first
    while True:
        yield filler


# -- the truth ----------------------------------------------------------------------------------------------------


def sibling(content: bytes, **other: Any) -> dict[str, Any]:
    sha = hashlib.sha256(content).hexdigest()
    lfs = {"sha256": sha, "size": len(content), "pointerSize": 133}
    return {"rfilename": FILE, "size": len(content), "blobId": "b" * 40, "lfs": lfs} | other


def listing(asked: Asked, *siblings: dict[str, Any], **other: Any) -> Iterator[Sent]:
    files = list(siblings) or [sibling(asked.content)]
    value = {"id": asked.repo, "sha": COMMIT, "private": False, "gated": False, "siblings": files} | other
    yield from answer(200, json.dumps(value).encode(), Content_Type="application/json")


def resolve(asked: Asked, location: str | None = None, status: int = 302, **other: str) -> Iterator[Sent]:
    sha = hashlib.sha256(asked.content).hexdigest()
    fields = {"X_Repo_Commit": COMMIT, "X_Linked_Etag": f'"{sha}"', "X_Linked_Size": str(len(asked.content))}
    target = location if location is not None else f"{asked.cdn}/{asked.repo}/{FILE}?Signature=secret-{asked.number}"
    yield from answer(status, b"", **(fields | {"Location": target} | other))


def span(asked: Asked, whole: bytes | None = None) -> tuple[int, int]:
    size = len(asked.content if whole is None else whole)
    start, end = asked.range or (0, size)
    return start, min(end, size)


def bytes_of(asked: Asked, content: bytes | None = None, *, wrong: int = 0, **other: str) -> Iterator[Sent]:
    """The file, or the range that was asked for. `wrong` moves what Content-Range says."""
    whole = asked.content if content is None else content
    start, end = span(asked, whole)
    fields = {"ETag": '"v1"', "Accept_Ranges": "bytes"}
    if asked.range:
        fields["Content_Range"] = f"bytes {start + wrong}-{end + wrong - 1}/{len(whole)}"
    fields = {name: value for name, value in (fields | other).items() if value}
    yield from answer(206 if asked.range else 200, whole[start:end], **fields)


TRUTH: dict[str, Lie] = {"listing": listing, "resolve": resolve, "bytes": bytes_of}


def step_of(asked: Asked) -> str:
    if asked.path.startswith("/api/"):
        return "listing"
    return "resolve" if "/resolve/" in asked.path else "bytes"
