"""Work for wants of many models: in order for each want, in turn between directories."""

from __future__ import annotations

from agent.requests.bulk import Bulk, Step


def noted(done: list[str], name: str) -> Step:
    async def work() -> None:
        done.append(name)

    return work


async def test_the_work_for_one_want_is_done_in_its_order() -> None:
    bulk, done = Bulk(), list[str]()
    for number in range(3):
        bulk.put("/spool/a.want", noted(done, f"a{number}"))
    assert "/spool/a.want" in bulk
    await bulk.work()
    assert done == ["a0", "a1", "a2"]
    assert "/spool/a.want" not in bulk


async def test_directories_have_their_turn() -> None:
    bulk, done = Bulk(), list[str]()
    for number in range(3):
        bulk.put(f"/spool/flood/{number}.want", noted(done, f"flood {number}"))
    bulk.put("/spool/other/x.want", noted(done, "other"))
    await bulk.work()
    assert done.index("other") == 1


async def test_work_that_comes_during_work_for_the_same_want_comes_after_all_of_it() -> None:
    bulk, done = Bulk(), list[str]()

    async def first() -> None:
        done.append("first")
        assert "/spool/a.want" in bulk
        bulk.put("/spool/a.want", noted(done, "third"))

    bulk.put("/spool/a.want", first)
    bulk.put("/spool/a.want", noted(done, "second"))
    await bulk.work()
    assert done == ["first", "second", "third"]
