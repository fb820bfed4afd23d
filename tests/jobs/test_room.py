"""Room for jobs, over a real store: pins hold, bytes are true, and quota and disk hold or something waits for them."""

from __future__ import annotations

import asyncio
import fcntl
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.config import Store
from agent.core.names import StoreName
from agent.core.retention import Reason
from agent.core.waits import ForDisk, ForQuota
from agent.errors import Code, WantdError
from agent.jobs.room import Wanted
from agent.jobs.run import NotNow
from agent.jobs.uses import Uses
from agent.state.job import Job
from agent.state.news import ModelNews
from agent.store.layout import RECORD
from agent.store.room.census import used_bytes
from agent.store.room.leases import Leased, lease
from agent.store.room.uses import mark
from tests.fakes import settle, target, ticket
from tests.jobs.workshop import Workshop
from tests.store.builders import Model

BLOCK = 4096
SMALL = 3 * BLOCK  # on the disk: a file of one block, its record and its manifest


def shop_in(folder: Path) -> Workshop:
    return Workshop(folder, {"m.gguf": bytes(BLOCK)})


def has(shop: Workshop, name: str, *, age_days: float = 0.0, data: bytes | None = None) -> Path:
    """A model that the store has, last used so many days ago; its file is like no other."""
    model = Model(name, {"m.gguf": data or name.encode().ljust(BLOCK, b".")}, repo=f"org/{name}")
    model.publish(shop.layout)
    for partial in os.listdir(shop.layout.partial):
        os.unlink(f"{shop.layout.partial}/{partial}")
    at = Path(shop.layout.directory(StoreName(name)))
    used(shop, at, age_days)
    return at


def used(shop: Workshop, at: Path, age_days: float) -> None:
    when = shop.clock.now().timestamp() - age_days * 86400
    for path in at.iterdir():
        os.utime(path, (when, when))
    mark(str(at), when)


def wants(shop: Workshop, name: str) -> Job:
    job = Job(target(name), shop.feed)
    job.add(ticket(name), 5)
    shop.jobs[job.target] = job
    return job


@pytest.fixture
async def shop(tmp_path: Path) -> Workshop:
    return shop_in(tmp_path)


async def test_room_on_the_disk_is_made_by_the_least_recently_used(shop: Workshop) -> None:
    old, new = has(shop, "old", age_days=9), has(shop, "new", age_days=1)
    shop.disk.free_bytes = BLOCK
    shop.store = Store(evict="lru")
    removed = shop.room.remover.remove

    def remove(name: StoreName):  # type: ignore[no-untyped-def]
        gone = removed(name)
        shop.disk.free_bytes += gone.freed_bytes
        return gone

    shop.room.remover = type("Freeing", (), {"remove": staticmethod(remove), "view": shop.view})()  # type: ignore[assignment]
    changes = shop.feed.subscribe()
    await shop.room.reserve(wants(shop, "a"), 2 * BLOCK, 2 * BLOCK)
    assert not old.exists() and new.exists()
    assert ModelNews("old", "evicted", reason="disk") in changes.take()
    assert shop.room.removed[Reason.DISK] == 1 and shop.room.freed_bytes == SMALL


async def test_nothing_is_removed_unless_the_configuration_says_so(shop: Workshop) -> None:
    old = has(shop, "old", age_days=99)
    shop.disk.free_bytes = 0
    with pytest.raises(NotNow) as caught:
        await shop.room.reserve(wants(shop, "a"), BLOCK, BLOCK)
    assert isinstance(caught.value.wait, ForDisk)
    assert [(pin.model, pin.wanted_by, pin.leased) for pin in caught.value.wait.held_by] == [("old", (), False)]
    await shop.room.tend()
    assert old.exists()


async def test_what_is_wanted_or_leased_stays_and_the_wait_names_it(shop: Workshop) -> None:
    has(shop, "wanted", age_days=9)
    has(shop, "leased", age_days=9)
    wants(shop, "wanted")
    shop.store = Store(evict="lru", max_bytes=2 * SMALL)
    with lease(shop.layout.directory(StoreName("leased"))):
        with pytest.raises(NotNow) as caught:
            await shop.room.reserve(wants(shop, "a"), BLOCK, BLOCK)
        with pytest.raises(Leased):
            await shop.room.remove(StoreName("leased"))
    assert isinstance(caught.value.wait, ForQuota)
    held = {pin.model: (pin.wanted_by, pin.leased) for pin in caught.value.wait.held_by}
    assert held == {"wanted": (("wanted.want",), False), "leased": ((), True)}
    with pytest.raises(Wanted, match=r"^wanted is wanted by /spool/wanted\.want$"):
        await shop.room.remove(StoreName("wanted"))


async def test_a_model_that_is_larger_than_the_quota_fails(shop: Workshop) -> None:
    shop.store = Store(max_bytes=BLOCK)
    with pytest.raises(WantdError) as caught:
        await shop.room.reserve(wants(shop, "a"), 1, BLOCK + 1)
    assert caught.value.code is Code.INSUFFICIENT_SPACE and "store.max_bytes" in caught.value.message


async def test_what_is_reserved_counts_against_the_quota(shop: Workshop) -> None:
    shop.store = Store(max_bytes=3 * BLOCK)
    first, second = wants(shop, "a"), wants(shop, "b")
    await shop.room.reserve(first, 2 * BLOCK, 2 * BLOCK)
    with pytest.raises(NotNow):
        await shop.room.reserve(second, 2 * BLOCK, 2 * BLOCK)
    assert await shop.room.capacity() == BLOCK
    shop.room.release(first)
    await shop.room.reserve(second, 2 * BLOCK, 2 * BLOCK)


async def test_capacity_counts_what_may_go(shop: Workshop) -> None:
    has(shop, "old", age_days=9)
    shop.store = Store(evict="lru", max_bytes=4 * BLOCK)
    assert await shop.room.capacity() == 4 * BLOCK
    wants(shop, "old")
    assert await shop.room.capacity() == BLOCK


async def test_wants_of_others_pin_too(shop: Workshop) -> None:
    old = has(shop, "old", age_days=99)
    shop.room.others = lambda: {"old": ("/their/spool/x.want",)}
    shop.store = Store(evict="lru", max_bytes=1, keep_days=1)
    await shop.room.tend()
    assert old.exists()
    with pytest.raises(Wanted):
        await shop.room.remove(StoreName("old"))


async def test_unused_models_go_and_their_reason_is_counted(shop: Workshop) -> None:
    old, new = has(shop, "old", age_days=9), has(shop, "new", age_days=1)
    shop.store = Store(keep_days=3)
    await shop.room.tend()
    assert not old.exists() and new.exists()
    assert dict(shop.room.removed) == {Reason.UNUSED: 1}


async def test_a_lease_that_was_seen_is_a_use(shop: Workshop) -> None:
    old = has(shop, "old", age_days=9)
    shop.store = Store(keep_days=3)
    with lease(str(old)):
        await shop.room.tend()
    await shop.room.tend()
    assert old.exists()
    await shop.clock.advance(4 * 86400)
    await shop.room.tend()
    assert not old.exists()


async def test_a_want_that_comes_during_the_removal_is_not_told_that_the_model_is_there(shop: Workshop) -> None:
    has(shop, "old", age_days=9)
    shop.store = Store(keep_days=3)
    assert not shop.room.leaving(StoreName("old"))
    await shop.room.tend()
    assert shop.room.leaving(StoreName("old"))
    await shop.clock.advance(10)
    assert not shop.room.leaving(StoreName("old"))


async def test_the_last_use_is_noted_when_the_last_want_goes(shop: Workshop) -> None:
    uses = Uses(shop.feed, shop.layout, shop.clock)
    serving = asyncio.create_task(uses.serve())
    job = shop.job()
    published = await shop.run(job)
    job.ready(published)
    shop.feed.gone(job)
    await settle()
    noted = os.stat(f"{published.directory}/.wantd.used").st_mtime
    assert noted == shop.clock.now().timestamp()
    serving.cancel()


# Whatever happens

NAMES = ["a", "b", "c", "d"]
STEPS = st.one_of(
    st.tuples(st.just("publish"), st.sampled_from(NAMES), st.integers(1, 4)),
    st.tuples(st.just("want"), st.sampled_from(NAMES)),
    st.tuples(st.just("unwant"), st.sampled_from(NAMES)),
    st.tuples(st.just("lease"), st.sampled_from(NAMES)),
    st.tuples(st.just("unlease"), st.sampled_from(NAMES)),
    st.tuples(st.just("read"), st.sampled_from(NAMES), st.integers(-20, 20)),
    st.tuples(st.just("quota"), st.integers(0, 40)),
    st.tuples(st.just("evict"), st.sampled_from(["never", "lru"])),
    st.tuples(st.just("keep"), st.integers(0, 5)),
    st.tuples(st.just("clock"), st.integers(0, 20)),
    st.tuples(st.just("tend")),
    st.tuples(st.just("reserve"), st.integers(1, 30)),
)


class History:
    """One sequence of steps, and after each what must hold."""

    def __init__(self, folder: Path) -> None:
        self.shop = shop_in(folder)
        self.shop.disk.free_bytes = 10**8
        self.leases: dict[str, int] = {}
        self.wanted: dict[str, Job] = {}
        self.number = 0

    @property
    def there(self) -> set[str]:
        return {name for name in NAMES if os.path.exists(f"{self.shop.layout.root}/{name}/{RECORD}")}

    async def step(self, step: tuple[object, ...]) -> None:
        shop, kind, name = self.shop, step[0], str(step[1]) if len(step) > 1 else ""
        pinned = {name for name in self.there if name in self.wanted or name in self.leases}
        before = used_bytes(shop.layout)
        freed = shop.room.freed_bytes
        if kind == "publish" and name not in self.there:
            self.number += 1
            has(shop, name, data=str(self.number).encode().ljust(int(str(step[2])) * BLOCK, b"."))
            before = used_bytes(shop.layout)
        elif kind == "want" and name not in self.wanted:
            self.wanted[name] = wants(shop, name)
        elif kind == "unwant" and name in self.wanted:
            del shop.jobs[self.wanted.pop(name).target]
        elif kind == "lease" and name in self.there and name not in self.leases:
            self.leases[name] = os.open(f"{shop.layout.root}/{name}/{RECORD}", os.O_RDONLY)
            fcntl.flock(self.leases[name], fcntl.LOCK_SH)
        elif kind == "unlease" and name in self.leases:
            os.close(self.leases.pop(name))
        elif kind == "read" and name in self.there:
            used(shop, Path(shop.layout.root, name), float(str(step[2])))
        elif kind == "quota":
            shop.store = _with(shop.store, max_bytes=int(name) * BLOCK)
        elif kind == "evict":
            shop.store = _with(shop.store, evict=name)
        elif kind == "keep":
            shop.store = _with(shop.store, keep_days=float(name))
        elif kind == "clock":
            await shop.clock.advance(float(name) * 86400)
        elif kind == "tend":
            await shop.room.tend()
        elif kind == "reserve":
            await self.reserve(int(name) * BLOCK)
        assert pinned <= self.there, "what is wanted or leased is never removed"
        assert before - used_bytes(shop.layout) == shop.room.freed_bytes - freed, "bytes freed are true"

    async def reserve(self, need: int) -> None:
        shop, job = self.shop, Job(target("next"), self.shop.feed)
        quota = shop.store.max_bytes
        try:
            await shop.room.reserve(job, need, need)
            assert not quota or used_bytes(shop.layout) + need <= quota, "the quota holds"
        except NotNow as later:
            assert isinstance(later.wait, ForQuota) and later.wait.need_bytes == need, "or it is waited for"
            counted = await shop.room.census()
            may_go = counted.evictable(shop.clock.now().timestamp()) if shop.store.evict == "lru" else 0
            assert used_bytes(shop.layout) - may_go + need > quota, "where nothing can be done about it"
        except WantdError as error:
            assert error.code is Code.INSUFFICIENT_SPACE and need > quota
        finally:
            shop.room.release(job)

    def close(self) -> None:
        for fd in self.leases.values():
            os.close(fd)


def _with(store: Store, **keys: object) -> Store:
    values = {name: getattr(store, name) for name in store.__struct_fields__}
    return Store(**{**values, **keys})


@pytest.mark.hypothesis
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, min_size=5, max_size=40))
def test_in_any_order_of_things_pins_hold_and_bytes_are_true(steps: list[tuple[object, ...]]) -> None:
    async def play() -> None:
        with tempfile.TemporaryDirectory(prefix="wantd-") as folder:
            history = History(Path(folder))
            try:
                for step in steps:
                    await history.step(step)
            finally:
                history.close()

    asyncio.run(play())
