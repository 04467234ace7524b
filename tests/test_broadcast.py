"""The broadcast: every subscriber sees every transition in order, at its own speed."""

import sys
import threading
from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from threading import RLock
from typing import Any

import anyio
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import Engine, Gap, RunHandle, Transition, flow, task
from engine.actors.broadcast import Broadcast, Buffer
from engine.exceptions import SubscriberOverflow
from engine.states import PENDING, Running


@task
async def step() -> None: ...


@task
def sync_step() -> None: ...


def numbers(items: list[Any]) -> list[int]:
    """Return the sequence numbers of transitions."""
    return [item.sequence for item in items]


async def run_some(engine: Engine, count: int) -> None:
    """Make 3 * *count* transitions."""
    for handle in [engine.start(step) for _ in range(count)]:
        await handle.join()


async def read(subscription: Any, into: list[Any], most: int | None = None) -> None:
    """Read up to *most* items, or to the end."""
    if len(into) == most:
        return
    async for item in subscription:
        into.append(item)
        if len(into) == most:
            return


@pytest.fixture
def hectic() -> Iterator[None]:
    """Make threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class TestOrder:
    async def test_a_run_is_seen_from_its_first_state_to_its_last(self) -> None:
        """Each transition starts where the one before has ended."""
        seen: list[Transition] = []
        async with Engine() as engine, engine.subscribe() as transitions:
            handle = engine.start(step)
            await handle
            await read(transitions, seen, most=3)
        assert [t.state.name for t in seen] == ["Pending", "Running", "Completed"]
        assert [t.sequence for t in seen] == [1, 2, 3]
        assert seen[0].previous is None
        for before, after in pairwise(seen):
            assert after.previous is before.state
        assert seen[-1].state is handle.state
        assert {t.run.id for t in seen} == {handle.id}

    async def test_subscribers_of_any_speed_see_the_same(self) -> None:
        """Who reads at once, in steps, or only at the end sees one sequence."""
        eager: list[Any] = []
        steady: list[Any] = []
        late: list[Any] = []
        async with Engine() as engine, anyio.create_task_group() as group:
            subscriptions = [engine.subscribe(buffer=1000) for _ in range(3)]
            group.start_soon(read, subscriptions[0], eager)
            for _ in range(10):
                await run_some(engine, 3)
                await read(subscriptions[1], steady, most=len(steady) + 7)
            await read(subscriptions[2], late, most=90)
            await read(subscriptions[1], steady, most=90)
            await anyio.wait_all_tasks_blocked()
            assert numbers(eager) == numbers(steady) == list(range(1, 91))
            assert numbers(late) == numbers(eager)
            for subscription in subscriptions:
                subscription.close()

    async def test_a_subscriber_sees_what_comes_after_it(self) -> None:
        """A subscription begins when it is made, not when it is first read."""
        seen: list[Any] = []
        async with Engine() as engine:
            await run_some(engine, 2)
            subscription = engine.subscribe()
            await run_some(engine, 1)
            await read(subscription, seen, most=3)
            subscription.close()
        assert numbers(seen) == [7, 8, 9]

    async def test_order_is_one_across_runs(self) -> None:
        """Children, siblings and parents are in one sequence, ends from below."""

        @flow
        async def parent() -> None:
            step.submit()
            await step()

        seen: list[Any] = []
        async with Engine() as engine:
            subscription = engine.subscribe()
            await engine.run(parent)
            await read(subscription, seen, most=9)
            subscription.close()
        assert numbers(seen) == list(range(1, 10))
        assert seen[0].run.id == seen[-1].run.id
        assert seen[-1].state.is_completed()

    @pytest.mark.usefixtures("hectic")
    async def test_many_threads_publish_one_sequence(self) -> None:
        """Runs in several threads at once: nothing lost, nothing twice, in order."""
        seen: list[Any] = []

        def work(engine: Engine) -> None:
            for _ in range(50):
                engine.start(sync_step).wait()

        async with Engine() as engine, anyio.create_task_group() as group:
            subscription = engine.subscribe(buffer=16, overflow="block")
            for _ in range(4):
                group.start_soon(anyio.to_thread.run_sync, work, engine)
            await read(subscription, seen, most=600)
            subscription.close()
        assert numbers(seen) == list(range(1, 601))
        last: dict[str, Any] = {}
        for transition in seen:
            assert transition.previous is last.get(transition.run.id)
            last[transition.run.id] = transition.state

    @pytest.mark.usefixtures("hectic")
    def test_a_reader_in_another_thread_is_always_woken(self) -> None:
        """A reader on a loop of its own sees the runs of a thread without one."""
        seen: list[Any] = []
        with Engine() as engine:
            subscription = engine.subscribe(buffer=2, overflow="block")
            reader = threading.Thread(
                target=anyio.run, args=(read, subscription, seen), daemon=True
            )
            reader.start()
            for _ in range(200):
                sync_step()
        reader.join(5)
        assert numbers(seen) == list(range(1, 601))


class TestEnd:
    async def test_a_stream_ends_with_its_engine_after_the_rest(self) -> None:
        """What was buffered when the engine closed is read before the end."""
        seen: list[Any] = []
        async with Engine() as engine:
            subscription = engine.subscribe()
            await run_some(engine, 2)
        with anyio.fail_after(5):
            await read(subscription, seen)
        assert numbers(seen) == [1, 2, 3, 4, 5, 6]

    async def test_closing_wakes_a_reader_that_waits(self) -> None:
        """A reader of an idle engine is let go of when the engine closes."""
        seen: list[Any] = []
        async with anyio.create_task_group() as group, Engine() as engine:
            group.start_soon(read, engine.subscribe(), seen)
            await anyio.wait_all_tasks_blocked()
        assert not seen

    async def test_leaving_the_block_ends_at_once(self) -> None:
        """A subscription that was left takes nothing more and gives nothing more."""
        seen: list[Any] = []
        async with Engine() as engine:
            async with engine.subscribe() as subscription:
                await run_some(engine, 1)
            await run_some(engine, 1)
            await read(subscription, seen)
            assert not engine.statistics().buffers
        assert not seen

    async def test_a_closed_engine_has_nothing_more_to_tell(self) -> None:
        """Subscribing too late ends at once instead of waiting for ever."""
        async with Engine() as engine:
            pass
        seen: list[Any] = []
        with anyio.fail_after(1):
            await read(engine.subscribe(), seen)
        assert not seen

    async def test_a_cancelled_reader_may_read_on(self) -> None:
        """Giving up on waiting for the next item loses none."""
        seen: list[Any] = []
        async with Engine() as engine, engine.subscribe() as subscription:
            async with anyio.create_task_group() as group:
                group.start_soon(read, subscription, seen)
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
            await run_some(engine, 1)
            await read(subscription, seen, most=3)
        assert numbers(seen) == [1, 2, 3]


class TestDropOldest:
    async def test_a_gap_stands_for_what_was_dropped(self) -> None:
        """A slow reader first learns how many it missed, then gets the newest."""
        seen: list[Any] = []
        async with Engine() as engine:
            subscription = engine.subscribe(buffer=4, overflow="drop_oldest")
            await run_some(engine, 5)
            statistics = engine.statistics().buffers[0]
            await read(subscription, seen, most=5)
            subscription.close()
        assert seen[0] == Gap(11)
        assert numbers(seen[1:]) == [12, 13, 14, 15]
        assert (statistics.buffered, statistics.buffer) == (4, 4)
        assert (statistics.dropped, statistics.overflow) == (11, "drop_oldest")

    async def test_it_holds_up_nobody(self) -> None:
        """Runs go on although nobody ever reads, and the buffer stays its size."""
        async with Engine() as engine:
            subscription = engine.subscribe(buffer=3, overflow="drop_oldest")
            await run_some(engine, 500)
            assert engine.statistics().buffers[0].buffered == 3
            subscription.close()


class TestFail:
    async def test_the_slow_reader_is_cut_off(self) -> None:
        """A full buffer ends the subscription with an error that names its size."""
        seen: list[Any] = []
        async with Engine() as engine:
            slow = engine.subscribe(buffer=4, overflow="fail")
            other = engine.subscribe(buffer=1000, overflow="fail")
            await run_some(engine, 2)
            with pytest.raises(SubscriberOverflow, match="more than 4") as caught:
                await read(slow, seen)
            assert caught.value.buffer == 4
            assert len(engine.statistics().buffers) == 1
            await read(other, seen, most=6)
            other.close()
        assert numbers(seen) == [1, 2, 3, 4, 5, 6]

    async def test_it_stays_cut_off_and_keeps_nothing(self) -> None:
        """Who was cut off gets the error every time, and holds no transitions."""
        async with Engine() as engine:
            subscription = engine.subscribe(buffer=1, overflow="fail")
            await run_some(engine, 10)
            for _ in range(2):
                with pytest.raises(SubscriberOverflow):
                    await read(subscription, [])
            assert subscription.statistics().buffered <= 1


class TestBlock:
    async def test_runs_wait_for_room(self) -> None:
        """No body begins while the buffer is full, and nothing is lost."""
        began: list[int] = []

        @task
        async def note(number: int) -> None:
            began.append(number)

        seen: list[Any] = []
        async with Engine() as engine:
            subscription = engine.subscribe(buffer=5, overflow="block")
            handles = [engine.start(note, i) for i in range(8)]
            await anyio.wait_all_tasks_blocked()
            assert not began, "eight runs are pending, in a buffer of five"
            await read(subscription, seen, most=24)
            for handle in handles:
                await handle
            subscription.close()
        assert sorted(began) == list(range(8))
        assert numbers(seen) == list(range(1, 25))

    @pytest.mark.parametrize("submits", [False, True])
    async def test_what_holds_the_reader_s_loop_does_not_wait_for_it(
        self, submits: bool
    ) -> None:
        """Neither a sync flow that is called on the loop nor what it submits."""

        @flow
        def holds_the_loop() -> None:
            for _ in range(5):
                if submits:
                    sync_step.submit().result()
                else:
                    sync_step()

        seen: list[Any] = []
        async with Engine() as engine:
            subscription = engine.subscribe(buffer=2, overflow="block")
            holds_the_loop()
            await read(subscription, seen, most=18)
            subscription.close()
        assert numbers(seen) == list(range(1, 19))

    async def test_the_excess_is_one_transition_of_each_live_run(self) -> None:
        """A buffer that nobody reads is bounded by what has begun already."""
        go_on = anyio.Event()

        @task
        async def work() -> None:
            await go_on.wait()

        async with Engine(shutdown_grace=0) as engine:
            running = [engine.start(work) for _ in range(10)]
            await anyio.wait_all_tasks_blocked()
            engine.subscribe(buffer=1, overflow="block")
            waiting = [engine.start(work) for _ in range(10)]
            go_on.set()
            for handle in running:
                await handle
            await anyio.wait_all_tasks_blocked()
            assert {handle.state.name for handle in waiting} == {"Pending"}
            assert engine.statistics().buffers[0].buffered <= 1 + 20

    async def test_a_reader_that_leaves_lets_go_of_the_runs(self) -> None:
        """Closing a full subscription wakes every run that waited for room."""
        async with Engine() as engine:
            async with engine.subscribe(buffer=1, overflow="block"):
                handles = [engine.start(step) for _ in range(5)]
                handles += [engine.start(sync_step) for _ in range(5)]
                await anyio.wait_all_tasks_blocked()
                assert {h.state.name for h in handles} == {"Pending"}
            with anyio.fail_after(5):
                for handle in handles:
                    await handle

    async def test_shutdown_does_not_wait_for_a_reader(self) -> None:
        """Runs that wait for room are cancelled like others when the engine closes."""
        async with Engine(shutdown_grace=0) as engine:
            engine.subscribe(buffer=1, overflow="block")
            handles = [engine.start(step), engine.start(sync_step)]
            await anyio.wait_all_tasks_blocked()
        assert {handle.state.cause for handle in handles} == {"shutdown"}

    @pytest.mark.parametrize("body", [step, sync_step], ids=["async", "sync"])
    async def test_a_cancelled_run_passes_its_turn_on(self, body: Any) -> None:
        """Of two runs that wait for room, cancelling one does not strand the other."""
        async with Engine() as engine, engine.subscribe(buffer=1) as transitions:
            first, second = await self.two_waiting(engine, body)
            first.cancel()
            with anyio.fail_after(5):
                async for transition in transitions:
                    if transition.state.is_completed():
                        break
            assert (await first.join()).is_cancelled()
            assert (await second.join()).is_completed()

    async def two_waiting(
        self, engine: Engine, body: Any
    ) -> tuple[RunHandle[Any], RunHandle[Any]]:
        """Start two runs, and see them wait for room, the first one first."""
        handles = []
        for number in (1, 2):
            handles.append(engine.start(body))
            while len(engine.broadcast.blocking[0].writers) < number:
                await anyio.lowlevel.checkpoint()
        first, second = handles
        return first, second

    @pytest.mark.usefixtures("hectic")
    async def test_no_wake_up_is_lost_between_threads(self) -> None:
        """Writers in many threads and a reader with one place get through together."""
        seen: list[Any] = []
        async with Engine() as engine:
            subscription = engine.subscribe(buffer=1, overflow="block")
            handles = [engine.start(sync_step) for _ in range(100)]
            with anyio.fail_after(10):
                await read(subscription, seen, most=300)
            for handle in handles:
                await handle
            subscription.close()
        assert numbers(seen) == list(range(1, 301))


SOME_RUN: Any = object()
SOME_STATE: Any = Running()


def number_only(run: Any, previous: Any, state: Any, sequence: int) -> Any:
    """Stand for a transition by its number."""
    return sequence


def publish(broadcast: Broadcast) -> None:
    with broadcast.lock:
        broadcast.sequence += 1
        if broadcast.keep is not None:
            broadcast.keep((SOME_RUN, None, SOME_STATE))
        elif broadcast.tell is not None:
            broadcast.tell((SOME_RUN, None, SOME_STATE, broadcast.sequence))


@given(
    overflow=st.sampled_from(["block", "drop_oldest", "fail"]),
    size=st.integers(1, 4),
    publishes=st.lists(st.booleans(), max_size=40),
)
def test_a_buffer_behaves_like_its_model(
    overflow: Any, size: int, publishes: list[bool]
) -> None:
    """In any order of publishing and reading, a reader gets what the rule promises."""
    broadcast = Broadcast(RLock(), number_only)
    buffer = broadcast.subscribe(size, overflow)
    model: deque[int] = deque()
    missed = sequence = 0
    is_cut_off = False
    for publishes_now in publishes:
        if publishes_now:
            publish(broadcast)
            sequence += 1
            if overflow == "fail" and len(model) == size:
                is_cut_off = True
            if overflow == "drop_oldest" and len(model) == size:
                model.popleft()
                missed += 1
            model.append(sequence)
        elif is_cut_off:
            with pytest.raises(SubscriberOverflow):
                buffer.take()
        elif missed:
            assert buffer.take() == Gap(missed)
            missed = 0
        else:
            assert buffer.take() == (model.popleft() if model else None)
    assert len(buffer.items) <= (sequence if overflow == "block" else size)


def number_and_content(run: Any, previous: Any, state: Any, sequence: int) -> Any:
    """Stand for a transition by its number, and by what was published as such."""
    return sequence, run if state is PENDING else state


@given(
    actions=st.lists(
        st.tuples(
            st.sampled_from(["publish", "begin", "owe", "subscribe", "take", "close"]),
            st.integers(0, 3),
            st.sampled_from(["block", "drop_oldest", "fail"]),
        ),
        max_size=60,
    )
)
def test_every_reader_sees_the_numbers_that_were_given(actions: list[Any]) -> None:
    """Whoever else reads, came later or has gone, and however a step was published."""
    broadcast: Any = Broadcast(RLock(), number_and_content)
    seen: dict[Buffer, int] = {}

    def take_from(reader: Buffer) -> bool:
        item: Any = None if reader.error else reader.take()
        if isinstance(item, Gap):
            seen[reader] += item.missed
        elif item is not None:
            seen[reader] += 1
            assert item == (seen[reader], seen[reader])
        return item is not None

    for action, number, overflow in actions:
        reader = list(seen)[number % len(seen)] if seen else None
        if action == "subscribe":
            seen[broadcast.subscribe(number + 1, overflow)] = broadcast.sequence
        elif action == "take" and reader:
            reader.await_item(lambda: None)
            take_from(reader)
        elif action == "close" and reader:
            reader.close()
        else:
            publish_content(broadcast, action)
    for reader in seen:
        while take_from(reader):
            pass


def publish_content(broadcast: Any, action: str) -> None:
    """Publish a run's first step, or another, whose content is its number."""
    broadcast.sequence = number = broadcast.sequence + 1
    step = (number, None, PENDING) if action == "begin" else (None, None, number)
    if action == "owe":
        broadcast.owe((*step, number))
    elif broadcast.keep is not None:
        broadcast.keep(number if action == "begin" else step)
    elif broadcast.tell is not None:
        broadcast.tell((*step, number))


@pytest.mark.usefixtures("hectic")
def test_gaps_and_items_add_up_between_threads() -> None:
    """With publishers in several threads, what was read and missed is everything."""
    broadcast = Broadcast(RLock(), number_only)
    buffer = broadcast.subscribe(1, "drop_oldest")

    def publish_many() -> None:
        for _ in range(2000):
            publish(broadcast)

    threads = [threading.Thread(target=publish_many) for _ in range(3)]
    for thread in threads:
        thread.start()
    read_or_missed = position = 0
    while any(t.is_alive() for t in threads) or buffer.items:
        item: Any = buffer.take()
        if isinstance(item, Gap):
            read_or_missed += item.missed
        elif item is not None:
            read_or_missed += 1
            assert item > position
            position = item
    assert read_or_missed == 6000


def test_taking_excludes_publishing() -> None:
    """A reader holds the lock while it looks, so that no gap is counted in part."""
    taken: list[bool] = []

    class Spy:
        def __enter__(self) -> None:
            taken.append(True)

        def __exit__(self, *_: object) -> None:
            taken.append(False)

    broadcast = Broadcast(Spy(), number_only)
    buffer = Buffer(broadcast, 1, "drop_oldest")
    assert buffer.keep is not None
    for _ in range(2):
        broadcast.sequence += 1
        buffer.keep((SOME_RUN, None, SOME_STATE))
    assert buffer.take() == Gap(1)
    assert taken == [True, False]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"buffer": 0}, "buffer must be >= 1, got 0"),
        ({"overflow": "drop"}, "'block', 'drop_oldest' or 'fail', got 'drop'"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], text: str) -> None:
    """A buffer of nothing and an unknown rule are refused when subscribing."""
    with Engine() as engine, pytest.raises(ValueError, match=text):
        engine.subscribe(**options)
