"""What the embedded Hub was asked for and what it sent, so that a test can hold a client to its promises."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any

RECENT = 5000  # requests remembered: a whole test's worth, some hundred kB


@dataclass
class Seen:
    """One request. A token is kept only as its hash; `status` is None while no answer has begun."""

    listener: str
    method: str
    path: str
    host: str
    range: str | None
    token_sha256: str | None
    status: int | None = None
    bytes_sent: int = 0

    @property
    def authorized(self) -> bool:
        """Whether an Authorization header came along, whatever was in it."""
        return self.token_sha256 is not None


class Ledger:
    """Counts by repository and file, and the latest requests, oldest first."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything seen so far."""
        self.bytes_sent: Counter[tuple[str, str]] = Counter()
        self.requests: Counter[tuple[str, str]] = Counter()
        self.recent: deque[Seen] = deque(maxlen=RECENT)
        self.seen_tokens: dict[str, set[str]] = {"hub": set(), "cdn": set()}
        self.open_bodies = 0
        self.most_open_bodies = 0

    def note(self, seen: Seen) -> None:
        """Record a request as it comes in."""
        self.recent.append(seen)
        if seen.token_sha256:
            self.seen_tokens[seen.listener].add(seen.token_sha256)

    def file_opened(self, file: tuple[str, str]) -> None:
        """A request for the bytes of a file is being answered."""
        self.requests[file] += 1
        self.open_bodies += 1
        self.most_open_bodies = max(self.most_open_bodies, self.open_bodies)

    def file_closed(self) -> None:
        """Its answer ended, one way or the other."""
        self.open_bodies -= 1

    def sent(self, seen: Seen, file: tuple[str, str] | None, count: int) -> None:
        """Body bytes were handed to the kernel."""
        seen.bytes_sent += count
        if file:
            self.bytes_sent[file] += count

    def to_json(self) -> dict[str, Any]:
        """Everything, for the control API. Files are written `repo/file`."""
        return {
            "bytes_sent": {"/".join(file): count for file, count in self.bytes_sent.items()},
            "requests": {"/".join(file): count for file, count in self.requests.items()},
            "recent": [asdict(seen) | {"authorized": seen.authorized} for seen in self.recent],
            "seen_tokens": {listener: sorted(tokens) for listener, tokens in self.seen_tokens.items()},
            "open_bodies": self.open_bodies,
            "most_open_bodies": self.most_open_bodies,
        }


def token_hash(authorization: str) -> str:
    """SHA-256 of the token in an Authorization header, hexadecimal."""
    return hashlib.sha256(authorization.removeprefix("Bearer ").strip().encode()).hexdigest()
