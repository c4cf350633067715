"""TaskBag: tasks are held, named, reported and cancelled."""

import asyncio

import pytest

from meshctl.tasks import TaskBag


async def test_a_failed_task_is_reported_once_by_name() -> None:
    reports: list[tuple[str, BaseException]] = []
    bag = TaskBag(lambda name, error: reports.append((name, error)))

    async def fail() -> None:
        raise ValueError("no")

    task = bag.spawn("failing", fail())
    await asyncio.wait([task])
    await bag.close()
    assert [(name, str(error)) for name, error in reports] == [("failing", "no")]


async def test_closing_cancels_every_task_and_waits_for_its_clean_up() -> None:
    cleaned: list[str] = []
    bag = TaskBag(lambda name, error: pytest.fail(f"{name}: {error}"))

    async def run(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(name)

    for name in ("a", "b"):
        bag.spawn(name, run(name))
    assert bag.names == ("a", "b")
    await asyncio.sleep(0)
    await bag.close()
    await bag.close()
    assert (sorted(cleaned), len(bag)) == (["a", "b"], 0)


async def test_a_closed_bag_starts_nothing() -> None:
    bag = TaskBag(lambda name, error: None)
    await bag.close()
    with pytest.raises(RuntimeError, match="'late'"):
        bag.spawn("late", asyncio.sleep(0))


async def test_a_task_may_close_its_own_bag() -> None:
    bag = TaskBag(lambda name, error: pytest.fail(f"{name}: {error}"))
    other = bag.spawn("other", asyncio.Event().wait())
    await bag.spawn("closer", bag.close())
    assert other.cancelled()
