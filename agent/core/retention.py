"""What may go from the store, in what order, and what is pinned: facts and the time now in, what to remove out.

A model is *pinned* by a want that names it and by a lease; what is pinned is never removed. All else goes least
recently used first. Times are in seconds since the epoch, and one in the future (a clock that was set back) counts as
now, so that nothing is removed for it. Sizes are bytes on disk.

Models may share files by hard link, so a model alone may free nothing and two together everything: what a removal
frees is counted by inode, over all that go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

Inode = tuple[int, int]  # device and inode number
SLIVER = 100  # a model has a record and a manifest of its own, which always become free


class Reason(StrEnum):
    """Why a model was removed."""

    QUOTA = "quota"  # the store was above `store.max_bytes`, or a want needed room below it
    DISK = "disk"  # the disk was short of `store.min_free_bytes`, or a want needed room on it
    UNUSED = "unused"  # for `store.keep_days`
    REQUESTED = "requested"  # by a person: `wantd rm`


@dataclass(frozen=True, slots=True)
class Leftover:
    """A partial (its key and all its files' paths) and when it last changed, in seconds since the epoch."""

    key: str
    paths: tuple[str, ...]
    changed_at: float


def expired(leftovers: Iterable[Leftover], wanted: Collection[str], now: float, keep_s: float) -> list[Leftover]:
    """Partials that no job wants and that nothing has touched for `keep_s` seconds.

    A time in the future (a clock that was set back) counts as now: nothing is removed for it.
    """
    return [left for left in leftovers if left.key not in wanted and now - left.changed_at > keep_s]


@dataclass(frozen=True, slots=True)
class Stored:
    """A published model. `name` is its directory below the store, `files` are the inodes of all that belongs to it.

    `wanted_by` are the wants that name it. `in_use` says that a process has one of its files open: its removal would
    free nothing until that process ends, so it is passed over.
    """

    name: str
    files: frozenset[Inode]
    last_used: float
    wanted_by: tuple[str, ...] = ()
    leased: bool = False
    in_use: bool = False

    @property
    def pinned(self) -> bool:
        """Whether it must stay."""
        return self.leased or bool(self.wanted_by)

    @property
    def may_go(self) -> bool:
        """Whether it may be removed to make room."""
        return not (self.pinned or self.in_use)


@dataclass(frozen=True)
class Census:
    """All published models at a moment. `sizes` has every inode of theirs; `elsewhere` are those of them that have a
    name outside the models and what goes with them: removing models does not free these.
    """

    models: Mapping[str, Stored]
    sizes: Mapping[Inode, int]
    elsewhere: frozenset[Inode] = frozenset()

    @cached_property
    def _shares(self) -> Counter[Inode]:
        return Counter(inode for model in self.models.values() for inode in model.files)

    def size(self, name: str) -> int:
        """Bytes of the model, each file once."""
        return sum(self.sizes[inode] for inode in self.models[name].files)

    def frees(self, names: Iterable[str]) -> int:
        """Bytes that the disk gains when these go together."""
        return _frees(self, (self.models[name] for name in dict.fromkeys(names)))

    def gains(self, order: Iterable[Stored]) -> Iterator[tuple[Stored, int]]:
        """Each of the models, and the bytes that are free once it has gone after those before it."""
        left = dict[Inode, int]()
        for model in order:
            gain = 0
            for inode in model.files:
                left[inode] = left.get(inode, self._shares[inode]) - 1
                if not left[inode] and inode not in self.elsewhere:
                    gain += self.sizes[inode]
            yield model, gain

    def next_to_go(self, now: float) -> list[Stored]:
        """What may be removed to make room, the least recently used first."""
        free = (model for model in self.models.values() if model.may_go)
        return sorted(free, key=lambda model: (min(model.last_used, now), model.name))

    def evictable(self, now: float) -> int:
        """Bytes that removing all that may go would free."""
        return _frees(self, self.next_to_go(now))

    def worth_removing(self, models: list[Stored]) -> list[Stored]:
        """Those that have a part in what is freed when all of them go: more than one byte in `SLIVER` of theirs."""
        going = Counter(inode for model in models for inode in model.files)
        freed = {inode for inode, many in going.items() if many == self._shares[inode] and inode not in self.elsewhere}
        return [
            model
            for model in models
            if sum(self.sizes[inode] for inode in model.files & freed) * SLIVER > self.size(model.name)
        ]

    def without(self, refused: Collection[str]) -> Census:
        """The same, where these turned out to be in use."""
        models = {name: replace(m, in_use=m.in_use or name in refused) for name, m in self.models.items()}
        return Census(models, self.sizes, self.elsewhere)

    def holding(self, now: float, *, evict: bool) -> list[Stored]:
        """What keeps room from being made, the largest first: all that may not be removed."""
        goes = {model.name for model in self.next_to_go(now)} if evict else set()
        stays = (model for model in self.models.values() if model.name not in goes)
        return sorted(stays, key=lambda model: (-self.size(model.name), model.name))


def make_room(census: Census, missing: int, now: float) -> list[Stored] | None:
    """What to remove so that `missing` more bytes are free; None where all that may go would not do.

    Then nothing goes: models lost would have helped nobody.
    """
    chosen = relieve(census, missing, now)
    return chosen if _frees(census, chosen) >= missing else None


def relieve(census: Census, excess: int, now: float, going: Sequence[Stored] = ()) -> list[Stored]:
    """What to remove from a store that is `excess` bytes too large; as much as may go where that is not enough.

    `going` are models that go anyway. A model that frees next to nothing, since what stays shares its files, stays
    too, unless it takes just that.
    """
    chosen: list[Stored] = []
    freed = 0
    order = [*going, *(model for model in census.next_to_go(now) if model not in going)]
    for at, (model, gain) in enumerate(census.gains(order)):
        if at >= len(going):
            if freed >= excess:
                break
            chosen.append(model)
        freed += gain
    worth = [model for model in census.worth_removing([*going, *chosen]) if model not in going]
    return worth if _frees(census, [*going, *worth]) >= min(excess, freed) else chosen


def due(census: Census, now: float, keep_s: float, over_quota: int, short_of_disk: int) -> list[tuple[Stored, Reason]]:
    """What is to be removed now, in order, and why: unused for `keep_s` seconds (0: however long), or to have the
    store smaller by `over_quota` bytes, or the disk freer by `short_of_disk`.
    """
    going = [(model, Reason.UNUSED) for model in (unused(census, now, keep_s) if keep_s else [])]
    for excess, reason in ((over_quota, Reason.QUOTA), (short_of_disk, Reason.DISK)):
        going += [(model, reason) for model in relieve(census, excess, now, [model for model, _ in going])]
    return going


def unused(census: Census, now: float, keep_s: float) -> list[Stored]:
    """What has not been used for `keep_s` seconds, the least recently used first."""
    return [model for model in census.next_to_go(now) if now - model.last_used > keep_s]


def _frees(census: Census, models: Iterable[Stored]) -> int:
    return sum(gain for _, gain in census.gains(models))
