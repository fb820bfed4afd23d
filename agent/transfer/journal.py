"""The journal of a partial file, as JSON Lines. The first line identifies the file:

    {"version":1,"size":4294967296,"granule":1048576,"sha256":"…","git_sha1":null,"etag":null,"source":"hub"}

and each of the others claims that a granule is there, with the CRC-32 of its bytes: `[17,3405691582]`, or takes the
claim back: `[17,null]`. The last line about a granule counts; a line that cannot be parsed is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from agent.core.ranges import GRANULE_MAX, GRANULE_MIN

VERSION = 1
JOURNAL_MAX = 64 * 1024 * 1024  # bytes; 4 MiB granules of 10 TB make 50 MB
HEADER_MAX = 4096  # bytes; orjson holds the GIL, so no line longer than this is parsed
LINE_MAX = 40  # bytes; two integers


@dataclass(frozen=True, slots=True)
class Identity:
    """The file that the bytes belong to, sizes in bytes. Content is compared by hash if one is known, else by ETag."""

    size: int
    granule: int
    sha256: str | None = None
    git_sha1: str | None = None
    etag: str | None = None
    source: str | None = None

    def continues(self, old: Identity) -> bool:
        """Whether bytes claimed under `old` are bytes of this file."""
        if (self.size, self.granule) != (old.size, old.granule):
            return False
        if self.sha256 or self.git_sha1:
            return (self.sha256, self.git_sha1) == (old.sha256, old.git_sha1)
        return self.etag is not None and self.etag == old.etag and not (old.sha256 or old.git_sha1)


def parse_journal(data: bytes, part_size: int) -> tuple[Identity, dict[int, int]] | None:
    """Parse any bytes that a crash may have left: the identity, and the checksums by granule. None without a header.

    Never raises. No claim reaches past `part_size`, the length of the part file in bytes.
    """
    header, _, rest = data.partition(b"\n")
    identity = _parse_header(header)
    if identity is None:
        return None
    sums: dict[int, int] = {}
    size, granule = identity.size, identity.granule
    # By arithmetic alone: a grid takes memory in proportion to the size that a damaged header claims.
    claimable = -(-size // granule) if size <= part_size else part_size // granule
    whole = rest[: rest.rfind(b"\n") + 1]  # a last line without its newline is torn
    for line in whole.splitlines():
        entry = _loads(line, LINE_MAX)
        if not (isinstance(entry, list) and len(entry) == 2):
            continue
        index, crc = _integer(entry[0]), _integer(entry[1])
        if entry[1] is None:
            sums.pop(index, None)
        elif 0 <= crc < 2**32 and 0 <= index < claimable:
            sums[index] = crc
    return identity, sums


def journal(identity: Identity, sums: Mapping[int, int]) -> bytes:
    """The bytes of a journal with these claims: checksums by granule."""
    lines = [orjson.dumps({"version": VERSION, **asdict(identity)})]
    lines += [b"[%d,%d]" % entry for entry in sums.items()]
    return b"\n".join(lines) + b"\n"


def _parse_header(line: bytes) -> Identity | None:
    header = _loads(line, HEADER_MAX)
    if not isinstance(header, dict) or header.pop("version", None) != VERSION:
        return None
    texts = [header.get(key) for key in ("sha256", "git_sha1", "etag", "source")]
    if not all(text is None or isinstance(text, str) for text in texts):
        return None
    size, granule = _integer(header.get("size")), _integer(header.get("granule"))
    if not (0 <= size < 2**62 and GRANULE_MIN <= granule <= GRANULE_MAX):
        return None
    return Identity(size, granule, *texts)


def _integer(value: object) -> int:
    """The value if it is an integer, else -1, which no number in a journal may be."""
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


def _loads(line: bytes, most: int) -> Any:
    if len(line) > most:
        return None
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
