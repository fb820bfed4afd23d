"""Who gets a lane: connections are divided among downloads by time, not by piece.

A *claim* is a file that has work, or may have some; a *group* is all that one model fetches; a *hold* is a lane at work
on a claim. Shares are those of groups, so that a model of many files gets no more than a model of one. What holds:

1. There are never more holds than `most` in all, nor than a host's `most` to that host.
2. A group that has work and no lane gets one at once, above the number of connections that is known to help there.
3. Within a host the lanes of groups are as their weights, as nearly as whole lanes allow. What one has above its share
   is taken back for one that has less: at once for a first lane, else once it was at work for `SETTLE_S`.
4. Small files have a right of way: they pass the large ones of their group, and a group with small files may be
   `SMALL_AHEAD` of them ahead of its share.
5. A file of which a part can only be had from its first byte on keeps its lane to the end.
6. Where there are more groups than lanes, they take turns by time, as their weights are.

Not thread-safe: its owner holds a lock. Times are seconds of one clock.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from agent.core.retry import SETTLE_S, SLICE_S

SMALL_LOAD = 0.5  # of a connection: a small file waits half of its time or more, for the response and for the disk
SMALL_AHEAD = 4  # small files of one group that go before its share is asked for
PRIORITIES = 10
WEIGHT_RATIO = 12.0  # of priority 0 to priority 9: with whole lanes, eight to one at the least where there are nine


def weight(priority: int) -> float:
    """What a lane of a group of this priority counts: 1.0 for the last (9), `WEIGHT_RATIO` for the first (0)."""
    steps = PRIORITIES - 1 - min(max(priority, 0), PRIORITIES - 1)
    return float(WEIGHT_RATIO ** (steps / (PRIORITIES - 1)))


@dataclass(eq=False, slots=True)
class HostShare:
    """One host and port: how many connections help there, how many there may be, and those that are at work."""

    target: int
    most: int
    lanes: int = 0
    load: float = 0.0  # lanes, where a small file counts `SMALL_LOAD`


@dataclass(eq=False, slots=True)
class Claim:
    """A file that has work, or may have some. `lanes` are at work on it."""

    group: str
    priority: int
    host: HostShare
    small: bool
    lanes: int = 0
    waiting: bool = False

    @property
    def step(self) -> float:
        """What a lane at work on it counts."""
        return SMALL_LOAD if self.small else 1.0


@dataclass(eq=False, slots=True)
class Hold:
    """A lane at work on a claim, since the time `since`. It counts for the host that the claim had then.

    One that is `bound` is never taken back: what it has would be lost.
    """

    claim: Claim
    host: HostShare
    small: bool
    since: float
    bound: bool

    @property
    def load(self) -> float:
        return SMALL_LOAD if self.small else 1.0


@dataclass(eq=False, slots=True)
class _Group:
    name: str
    weight: float
    served: float  # lane seconds for each unit of weight, of all that have ended
    small: dict[Claim, None] = field(default_factory=dict)  # waiting, in order
    large: dict[Claim, None] = field(default_factory=dict)
    holds: dict[Hold, None] = field(default_factory=dict)
    load: float = 0.0
    small_lanes: int = 0

    @property
    def level(self) -> float:
        """How much it has, by its weight."""
        return self.load / self.weight

    def is_at(self, host: HostShare) -> bool:
        """Whether it has a lane at the host or waits for one."""
        claims = itertools.chain(self.small, self.large, (hold.claim for hold in self.holds))
        return any(claim.host is host for claim in claims)

    def served_by(self, now: float) -> float:
        running = sum((now - hold.since) * hold.load for hold in self.holds)
        return self.served + running / self.weight


class Shares:
    """The books: claims that wait, and holds. `most` is how many lanes there may be in all."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.lanes = 0
        self._groups: dict[str, _Group] = {}
        self._promised: Claim | None = None  # waits, and a lane was taken back for it

    def offer(self, claim: Claim, now: float) -> None:
        """The claim has work, or may have some."""
        claim.waiting = True
        group = self._groups.get(claim.group)
        if group is None:
            served = min((other.served_by(now) for other in self._groups.values()), default=0.0)
            group = self._groups[claim.group] = _Group(claim.group, 1.0, served)
        group.weight = weight(claim.priority)
        (group.small if claim.small else group.large).setdefault(claim)

    def withdraw(self, claim: Claim) -> None:
        """The claim has no work."""
        claim.waiting = False
        if claim is self._promised:
            self._promised = None
        if group := self._groups.get(claim.group):
            group.small.pop(claim, None)
            group.large.pop(claim, None)
            self._forget_if_idle(group)

    def begin(self, claim: Claim, now: float, *, bound: bool) -> Hold:
        """A lane goes to work on the claim, which goes to the end of its group's queue where it waits."""
        group = self._groups[claim.group]
        hold = Hold(claim, claim.host, claim.small, now, bound)
        if claim is self._promised:
            self._promised = None
        queue = group.small if claim.small else group.large
        if claim in queue:
            del queue[claim]
            queue[claim] = None
        group.holds[hold] = None
        self._count(group, hold, 1)
        return hold

    def end(self, hold: Hold, now: float) -> None:
        """The lane has left, or is about to: it counts no more. A second time changes nothing."""
        group = self._groups.get(hold.claim.group)
        if group is None or hold not in group.holds:
            return
        del group.holds[hold]
        group.served += (now - hold.since) * hold.load / group.weight
        self._count(group, hold, -1)
        self._forget_if_idle(group)

    def next(self, now: float) -> Claim | None:
        """The claim that gets the next free lane; None where none waits that may have one."""
        if self._promised is not None and self.has_room(self._promised):
            return self._promised
        return next((claim for group, claim in self._waiting(now) if self._has_room(group, claim)), None)

    def has_room(self, claim: Claim) -> bool:
        """Whether a lane may go to work on this waiting claim."""
        group = self._groups.get(claim.group)
        return group is not None and self._has_room(group, claim)

    def take_back(self, now: float) -> tuple[Claim, Hold] | None:
        """The next waiting claim that is short of its share, and the hold that has to end for it.

        The caller ends it with `end`, or withdraws the claim where it has no work after all, and asks again.
        """
        for group, claim in self._waiting(now):
            if not self._has_room(group, claim) and (hold := self._surplus(group, claim, now)):
                self._promised = claim
                return claim, hold
        return None

    def surplus_at(self, host: HostShare) -> Hold | None:
        """A hold that has to end since there are more at the host than there may be now; None where there are not."""
        if host.lanes <= host.most:
            return None
        holds = [(g, hold) for g in self._groups.values() for hold in g.holds if hold.host is host and not hold.bound]
        return max(holds, key=lambda each: (each[0].level, each[1].since), default=(None, None))[1]

    # -- deciding -----------------------------------------------------------------------------------------------

    def _waiting(self, now: float) -> Iterator[tuple[_Group, Claim]]:
        """The claims in the order in which they are served, of the small ones of a group the first alone."""
        queues = [(group, small) for group in self._groups.values() for small in (True, False)]
        queues = [(group, small) for group, small in queues if (group.small if small else group.large)]
        if len(queues) > 1:
            queues.sort(key=lambda queue: self._rank(queue[0], queue[1], now))
        for group, small in queues:
            claims = (
                list(itertools.islice(group.small, 1)) if small else sorted(group.large, key=lambda claim: claim.lanes)
            )
            for claim in claims:
                yield group, claim

    def _rank(self, group: _Group, small: bool, now: float) -> tuple[bool, bool, float, float, bool]:
        """First those without a lane, in turn; then small files; then those that have least by their weight."""
        passes = bool(group.holds) and small and self._may_pass(group)
        return bool(group.holds), not passes, group.level, group.served_by(now), not small

    def _may_pass(self, group: _Group) -> bool:
        """Whether one more small file of the group goes ahead of its share."""
        return group.small_lanes < SMALL_AHEAD

    def _has_room(self, group: _Group, claim: Claim) -> bool:
        host = claim.host
        return self.lanes < self.most and host.lanes < host.most and self._may_grow(group, claim)

    def _may_grow(self, group: _Group, claim: Claim) -> bool:
        """Whether one more lane for it is of use, whatever the limits."""
        host = claim.host
        if host.load < host.target or not group.holds or (claim.small and self._may_pass(group)):
            return True
        # Above the target only for the sake of weights: those that weigh less have whole lanes, which cannot be halved.
        after = (group.load + claim.step) / group.weight
        lighter = [other.level for other in self._groups.values() if other.weight < group.weight and other.is_at(host)]
        return bool(lighter) and after <= min(lighter)

    def _surplus(self, group: _Group, claim: Claim, now: float) -> Hold | None:
        """Whose hold should end so that the claim can have one; None where all is as it should be."""
        host = claim.host
        passes = not group.holds or (claim.small and self._may_pass(group))
        grows = self._may_grow(group, claim)
        only_total = grows and host.lanes < host.most
        best: tuple[float, Hold] | None = None
        for other in self._groups.values():
            holds = [hold for hold in other.holds if not hold.bound and (only_total or hold.host is host)]
            if not holds:
                continue
            newest = max(holds, key=lambda hold: (hold.claim.lanes, hold.since))
            if other is group:
                due = self._crowds_out(newest, claim, now)
            elif len(other.holds) == 1:
                due = not group.holds and self._is_due(group, claim, other, newest, now)
            else:
                due = passes or (now - newest.since >= SETTLE_S and self._levels(group, claim, other, grows))
            if due and (best is None or other.level > best[0]):
                best = other.level, newest
        return best[1] if best else None

    @staticmethod
    def _levels(group: _Group, claim: Claim, other: _Group, grows: bool) -> bool:
        """Whether one lane less for the other group makes the shares more level."""
        host = claim.host
        if grows or host.load - 1.0 < host.target:
            return (other.load - 1.0) / other.weight >= (group.load + claim.step) / group.weight
        # So far above the target that nobody gets what is taken back: that levels equals as well.
        return other.weight == group.weight and other.load - 1.0 >= group.load

    @staticmethod
    def _crowds_out(hold: Hold, claim: Claim, now: float) -> bool:
        """Whether one file of a group has what another one, which has no lane, should have."""
        if claim.lanes or hold.claim is claim:
            return False
        return claim.small or (hold.claim.lanes > 1 and now - hold.since >= SLICE_S)

    @staticmethod
    def _is_due(group: _Group, claim: Claim, other: _Group, hold: Hold, now: float) -> bool:
        """Whether the only lane of another group should go to one that has none: in turn, to small files at once."""
        ahead = other.served_by(now) - group.served_by(now)
        return ahead >= 0 if claim.small else ahead > 0 and now - hold.since >= SLICE_S

    # -- books --------------------------------------------------------------------------------------------------

    def _count(self, group: _Group, hold: Hold, by: int) -> None:
        self.lanes += by
        hold.host.lanes += by
        hold.host.load += by * hold.load
        hold.claim.lanes += by
        group.load += by * hold.load
        group.small_lanes += by * hold.small

    def _forget_if_idle(self, group: _Group) -> None:
        if not (group.small or group.large or group.holds):
            self._groups.pop(group.name, None)
