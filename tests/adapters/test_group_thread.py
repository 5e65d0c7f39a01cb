"""The thread behind the store and the audit: bounded, orderly, and never a reason to wait for ever."""

from __future__ import annotations

import asyncio
import threading

import pytest

from gharial.adapters.group_thread import GroupThread, Reply, answer_all


def a_thread(handle, **options) -> GroupThread[Reply]:
    return GroupThread(
        "test",
        handle=handle,
        abandon=lambda jobs: answer_all([(job, ConnectionAbortedError()) for job in jobs]),
        weigh=lambda _: 1,
        **{"max_waiting": 100, "max_group": 10, **options},
    )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_bug_in_the_handler_refuses_everyone():
    """When handling raises, all callers (of this group and behind it) are answered, and nothing is taken any more."""
    go = threading.Event()

    def handle(group: list[Reply]) -> None:
        go.wait(10)
        raise RuntimeError("a bug")

    thread = a_thread(handle)
    replies = [Reply.here() for _ in range(30)]
    assert all(map(thread.submit, replies))
    go.set()
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*(reply.future for reply in replies), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ConnectionAbortedError] * 30
    assert not thread.submit(Reply.here())
    thread.stop()


async def test_the_bound_counts_what_is_being_handled_too():
    """A job leaves the bound only when it is handled, so a slow disk can't let the queue grow beyond it."""
    go, begun = threading.Event(), threading.Event()

    def handle(group: list[Reply]) -> None:
        begun.set()
        go.wait(10)
        answer_all([(job, None) for job in group])

    thread = a_thread(handle, max_waiting=2)
    first, second = Reply.here(), Reply.here()
    assert thread.submit(first)
    await asyncio.to_thread(begun.wait, 10)
    assert thread.submit(second)
    assert not thread.submit(Reply.here())
    go.set()
    await asyncio.gather(first.future, second.future)
    thread.stop()


async def test_groups_are_bounded_and_in_order():
    """Everything is handled once, in its order, in groups of the size that was asked for at most."""
    groups: list[list[Reply]] = []

    def handle(group: list[Reply]) -> None:
        groups.append(group)
        answer_all([(job, None) for job in group])

    thread = a_thread(handle)
    replies = [Reply.here() for _ in range(35)]
    assert all(map(thread.submit, replies))
    await asyncio.gather(*(reply.future for reply in replies))
    thread.stop()
    assert [job for group in groups for job in group] == replies
    assert max(map(len, groups)) <= 10


def test_an_answer_to_a_loop_that_has_ended_is_dropped():
    """A caller whose loop is gone does not keep the others of the group from their answers."""

    async def reply_here() -> Reply:
        return Reply.here()

    gone = asyncio.run(reply_here())

    async def waits() -> object:
        here = Reply.here()
        await asyncio.to_thread(answer_all, [(gone, 1), (here, 2)])
        return await here.future

    assert asyncio.run(waits()) == 2


@pytest.mark.parametrize("ends_by", ["an urgent job", "a queue that fills up", "stop"])
async def test_jobs_that_nobody_waits_for_linger_together(ends_by: str):
    """They are handled as one group, and in order, as soon as there is a reason not to wait any longer."""
    groups: list[list[Reply]] = []

    def handle(group: list[Reply]) -> None:
        groups.append(group)
        answer_all([(job, None) for job in group])

    thread = a_thread(handle, linger_s=3600, max_waiting=9, max_group=100)
    replies = [Reply.here() for _ in range(4)]
    for reply in replies:
        assert thread.submit(reply, urgent=False)
    assert not groups
    if ends_by == "stop":
        await asyncio.to_thread(thread.stop)
    else:
        replies.append(Reply.here())
        assert thread.submit(replies[-1], urgent=ends_by == "an urgent job")
    async with asyncio.timeout(10):
        await asyncio.gather(*(reply.future for reply in replies))
    thread.stop()
    assert groups == [replies]


async def test_lingering_ends_by_itself():
    """A job that nobody waits for is handled although nothing else ever comes."""
    thread = a_thread(lambda group: answer_all([(job, None) for job in group]), linger_s=0.001)
    reply = Reply.here()
    assert thread.submit(reply, urgent=False)
    async with asyncio.timeout(10):
        await reply.future
    thread.stop()
