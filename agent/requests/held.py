"""How much memory the wants of each user take, so that nobody's fill it; small ones are bounded by the disk."""

from __future__ import annotations

from collections import Counter

from agent.core.limits import HELD_BYTES
from agent.core.want import Want
from agent.errors import Code, WantdError
from agent.spool.files import Stamp

SMALL_BYTES = 1024  # wants that are no larger are not counted: 100,000 of them are a use, not an attack
MODEL_BYTES = 150  # of memory for each model of a want, beside its text


class Held:
    """What the larger wants take, by path and by the user whose file it is."""

    def __init__(self) -> None:
        self._wants: dict[str, tuple[int, int]] = {}  # owner and bytes
        self._owners: Counter[int] = Counter()

    def take(self, path: str, stamp: Stamp, want: Want) -> WantdError | None:
        """Count a want in; the error where its owner has too many already."""
        self.give_back(path)
        weight = stamp.size + MODEL_BYTES * len(want.models)
        if stamp.size <= SMALL_BYTES:
            return None
        if self._owners[stamp.owner] + weight > HELD_BYTES:
            return WantdError(
                Code.WANT_TOO_LARGE,
                f"the larger wants of user {stamp.owner} would take more than {HELD_BYTES // 1_000_000} MB of memory",
                "remove wants that are no longer needed, then touch this one",
            )
        self._wants[path] = stamp.owner, weight
        self._owners[stamp.owner] += weight
        return None

    def give_back(self, path: str) -> None:
        """The want is gone, or has other content."""
        owner, weight = self._wants.pop(path, (0, 0))
        self._owners[owner] -= weight
        if not self._owners[owner]:
            del self._owners[owner]
