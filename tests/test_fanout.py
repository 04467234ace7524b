"""Fan-out: map, stream, as_completed and wait."""

import gc
import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from engine import (
    Engine,
    RunHandle,
    State,
    as_completed,
    flow,
    quote,
    task,
    unmapped,
    wait,
)
from engine.exceptions import (
    BlockingCallError,
    MappingLengthMismatch,
    MappingMissingIterable,
    NoEngineError,
)


@task
def double(x: int) -> int:
    return 2 * x


@task
def together(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    return (*args, *kwargs.items())


@task
def fail_if_odd(x: int) -> int:
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x


@task
async def fail_if_odd_async(x: int) -> int:
    await anyio.lowlevel.checkpoint()
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x


class Gates:
    """An async task whose runs each wait to be let go; it counts who is inside."""

    def __init__(self) -> None:
        self.events: dict[int, anyio.Event] = {}
        self.started: list[int] = []
        self.inside = self.most = 0
        self.task = task(self.body)

    async def body(self, key: int) -> int:
        self.started.append(key)
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.event(key).wait()
        finally:
            self.inside -= 1
        return key

    def event(self, key: int) -> anyio.Event:
        return self.events.setdefault(key, anyio.Event())

    def open(self, *keys: int) -> None:
        for key in keys:
            self.event(key).set()


async def collect(stream: Any, values: list[Any]) -> None:
    values.extend([await handle async for handle in stream])


class TestMap:
    def test_it_makes_a_run_for_each_item(self) -> None:
        """The values come in the order of the items."""

        @flow
        def body() -> list[int]:
            return double.map([1, 2, 3]).result()

        assert body() == [2, 4, 6]

    async def test_its_handles_can_be_awaited_together(self) -> None:
        """Awaiting the list gives all values, or raises the first error in order."""
        async with Engine():
            assert await double.map(range(4)) == [0, 2, 4, 6]
            handles = fail_if_odd_async.map([0, 3, 1])
            with pytest.raises(ValueError, match="3 is odd"):
                await handles
            assert [handle.state.name for handle in handles] == [
                "Completed",
                "Failed",
                "Failed",
            ]

    def test_several_iterables_go_side_by_side(self) -> None:
        """Positional and keyword iterables are taken together, item by item."""
        with Engine():
            handles = together.map([1, 2], (3, 4), k={5: 0, 6: 0}.keys())
            assert handles.result() == [(1, 3, ("k", 5)), (2, 4, ("k", 6))]

    @pytest.mark.parametrize(
        "value",
        ["text", b"bytes", bytearray(b"b"), {"a": 1}, None, 7, double, [9], (8, 9)],
        ids=repr,
    )
    def test_what_is_no_iterable_is_the_same_for_all(self, value: Any) -> None:
        """Strings, bytes, mappings, plain values and what is unmapped are constant."""
        constant = unmapped(value) if isinstance(value, list | tuple) else value
        with Engine():
            handles = together.map([1, 2], constant, k=constant)
            assert handles.result() == [(x, value, ("k", value)) for x in (1, 2)]

    def test_generators_are_used_up(self) -> None:
        """Any iterable will do, and defaults are not mapped over."""

        @task
        def body(x: int, default: tuple[int, ...] = (1, 2, 3)) -> Any:
            return x, default

        with Engine():
            assert body.map(x for x in range(2)).result() == [
                (0, (1, 2, 3)),
                (1, (1, 2, 3)),
            ]
            assert double.map({3, 1}).result() in ([6, 2], [2, 6])

    def test_runs_that_hold_lists_are_mapped_over(self) -> None:
        """The handle or state of a run stands for the items of its result."""
        make = task(lambda: [1, 2, 3])
        with Engine():
            assert double.map(make.submit()).result() == [2, 4, 6]
            assert double.map(make(return_state=True)).result() == [2, 4, 6]

    async def test_a_handle_that_runs_still_is_refused_on_a_loop(self) -> None:
        """Its length cannot be known without blocking: the error says to await it."""

        @task
        async def make() -> list[int]:
            return [1, 2]

        async with Engine():
            handle = make.submit()
            with pytest.raises(BlockingCallError, match="await"):
                double.map(handle)
            await handle
            assert await double.map(handle) == [2, 4]

    def test_handles_among_the_items_are_resolved(self) -> None:
        """A list of handles is mapped over, each run gets a result."""
        with Engine():
            assert double.map(double.map([1, 2])).result() == [4, 8]

    def test_a_quoted_list_is_mapped_over_unseen(self) -> None:
        """quote() passes the items as they are, runs among them."""
        with Engine():
            handle = double.submit(1)
            [result] = together.map(quote([handle])).result()
            assert result == (handle,)

    def test_nothing_to_map_over_is_no_run(self) -> None:
        """An empty iterable gives an empty list."""
        with Engine() as engine:
            handles = double.map([])
            assert handles == []
            assert handles.result() == []
            assert handles.wait() == []
            assert engine.statistics().transitions == 0

    def test_unequal_lengths_are_refused(self) -> None:
        """The error tells each argument's length, before any run is made."""
        with Engine() as engine:
            with pytest.raises(MappingLengthMismatch) as caught:
                together.map([1, 2], [1], k=[1, 2, 3])
            assert engine.statistics().transitions == 0
        assert isinstance(caught.value, ValueError)
        assert caught.value.lengths == {"argument 1": 2, "argument 2": 1, "k": 3}
        assert "argument 1: 2, argument 2: 1, k: 3" in str(caught.value)
        assert "unmapped()" in str(caught.value)

    @pytest.mark.parametrize("args", [(), (1,), ("text",), (unmapped([1]),)])
    def test_no_iterable_is_refused(self, args: Any) -> None:
        """Without anything to iterate over map points at submit."""
        with Engine(), pytest.raises(MappingMissingIterable, match=r"submit\(\)"):
            together.map(*args)

    def test_wait_for_applies_to_each_run(self) -> None:
        """Every run of a map waits for the runs in wait_for."""
        opened = threading.Event()
        first = task(lambda: opened.wait(10))
        with Engine():
            upstream = first.submit()
            handles = double.map([1, 2], wait_for=[upstream])
            assert [h.state.name for h in handles] == ["Pending", "Pending"]
            opened.set()
            assert handles.result() == [2, 4]

    def test_wait_gives_states(self) -> None:
        """Waiting raises no run's error and tells how each ended."""
        with Engine():
            handles = fail_if_odd.map([0, 1])
            assert [s.name for s in handles.wait()] == ["Completed", "Failed"]
            value, error = handles.result(raise_on_failure=False)
            assert value == 0
            assert isinstance(error, ValueError)

    def test_one_timeout_is_for_all(self) -> None:
        """The seconds given are for the whole list, not for each run."""
        opened = threading.Event()
        blocked = task(lambda x: opened.wait(10))
        with Engine():
            handles = blocked.map([1, 2])
            assert not any(s.is_final() for s in handles.wait(timeout=0.002))
            with pytest.raises(TimeoutError, match="not done after"):
                handles.result(timeout=0.002)
            opened.set()
            assert handles.result(timeout=10) == [True, True]
            with pytest.raises(ValueError, match="timeout must be >= 0"):
                handles.wait(timeout=-1)


class TestStream:
    async def test_it_gives_every_run(self) -> None:
        """Each item has a run; sync and async tasks alike."""
        async with Engine():
            values = [await h async for h in double.stream(range(10), limit=3)]
            assert sorted(values) == list(range(0, 20, 2))
            handles = [h async for h in fail_if_odd_async.stream([0, 2], limit=3)]
            assert sorted(h.state.result() for h in handles) == [0, 2]

    def test_it_works_in_sync_code(self) -> None:
        """A sync flow iterates with a plain for."""

        @flow
        def body() -> list[int]:
            return [h.result() for h in double.stream([1, 2, 3], limit=2)]

        assert sorted(body()) == [2, 4, 6]

    async def test_it_gives_runs_in_the_order_in_which_they_end(self) -> None:
        """A slow run does not hold up those behind it."""
        gates = Gates()
        async with Engine():
            stream = gates.task.stream([1, 2, 3], limit=3)
            gates.open(2)
            assert await (await anext(stream)) == 2
            gates.open(3)
            assert await (await anext(stream)) == 3
            gates.open(1)
            assert await (await anext(stream)) == 1
            with pytest.raises(StopAsyncIteration):
                await anext(stream)

    async def test_no_more_than_the_limit_are_alive(self) -> None:
        """Items are taken only when there is room, from endless iterables too."""
        gates = Gates()
        gates.open(*range(100))
        taken = []

        def items() -> Iterator[int]:
            for item in itertools.count():
                taken.append(item)
                yield item

        async with Engine() as engine:
            stream = gates.task.stream(items(), limit=5)
            for read in range(1, 21):
                await anext(stream)
                assert len(taken) <= read + 5
                assert engine.statistics().live_runs <= 5
            await stream.aclose()
        assert gates.most <= 5

    async def test_results_not_read_count_as_alive(self) -> None:
        """A reader that is slow keeps the stream from piling up results."""
        gates = Gates()
        gates.open(*range(10))
        async with Engine():
            stream = gates.task.stream(range(10), limit=2)
            await anext(stream)
            await anyio.wait_all_tasks_blocked()
            assert len(gates.started) <= 3
            assert len([h async for h in stream]) == 9

    async def test_keyword_arguments_are_for_every_run(self) -> None:
        """Further arguments are the same for each item."""
        async with Engine():
            stream = together.stream([1, 2], k=[3])
            values = sorted([await handle async for handle in stream])
        assert values == [(1, ("k", [3])), (2, ("k", [3]))]

    async def test_wait_for_is_for_every_run(self) -> None:
        """Every run of a stream waits for the runs in wait_for."""
        gates = Gates()
        async with Engine() as engine:
            upstream = gates.task.submit(1)
            stream = double.stream([1, 2], wait_for=[upstream])
            async with anyio.create_task_group() as group:
                group.start_soon(collect, stream, values := [])
                await anyio.wait_all_tasks_blocked()
                assert {run.state_name for run in engine.runs(name="double")} == {
                    "Pending"
                }
                gates.open(1)
        assert sorted(values) == [2, 4]

    @pytest.mark.parametrize("asynchronous", [False, True])
    async def test_nothing_to_stream_ends_at_once(self, asynchronous: bool) -> None:
        """An empty iterable of either kind gives an empty stream."""
        async with Engine():
            items = arriving(()) if asynchronous else ()
            assert [h async for h in double.stream(items)] == []

    async def test_it_takes_async_iterables(self) -> None:
        """Items may come from an async generator, at their own pace."""
        async with Engine():
            stream = double.stream(arriving(range(10)), limit=3)
            values = [await handle async for handle in stream]
        assert sorted(values) == list(range(0, 20, 2))

    async def test_an_async_source_is_not_read_ahead(self) -> None:
        """Of an endless async iterable only so many items are taken."""
        gates = Gates()
        gates.open(*range(100))
        taken: list[int] = []
        async with Engine():
            stream = gates.task.stream(arriving(itertools.count(), taken), limit=4)
            for read in range(1, 21):
                await anext(stream)
                assert len(taken) <= read + 5
            await stream.aclose()

    async def test_a_slow_source_does_not_keep_results_back(self) -> None:
        """What has ended is given while the source waits for its next item."""
        more = anyio.Event()

        async def source() -> AsyncIterator[int]:
            yield 1
            await more.wait()
            yield 2

        async with Engine():
            stream = double.stream(source(), limit=5)
            assert await (await anext(stream)) == 2
            more.set()
            assert await (await anext(stream)) == 4

    @pytest.mark.parametrize("asynchronous", [False, True])
    async def test_an_error_of_the_source_is_raised(self, asynchronous: bool) -> None:
        """An iterable that raises ends the stream with its error."""

        def broken() -> Iterator[int]:
            yield 0
            raise LookupError("no more")

        async def broken_async() -> AsyncIterator[int]:
            yield 0
            raise LookupError("no more")

        async with Engine() as engine:
            items: Any = broken_async() if asynchronous else broken()
            with pytest.raises(LookupError, match="no more"):
                async for _ in double.stream(items, limit=1):
                    pass
            assert engine.statistics().live_runs == 0

    async def test_an_error_cancels_the_siblings(self) -> None:
        """By default the first run that fails stops the others and is raised."""
        gates = Gates()
        ended = []

        @task(on_cancellation=[lambda t, run, state: ended.append(state.cause)])
        async def body(x: int) -> None:
            if x == 1:
                await gates.event(1).wait()
                raise ValueError("the first error")
            await anyio.sleep_forever()

        taken: list[int] = []

        def items() -> Iterator[int]:
            for item in range(10):
                taken.append(item)
                yield item

        async with Engine() as engine:
            stream = body.stream(items(), limit=4)
            async with anyio.create_task_group() as group:
                group.start_soon(expect_error, stream, "the first error")
                await anyio.wait_all_tasks_blocked()
                gates.open(1)
            assert engine.statistics().live_runs == 0
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        assert ended == ["sibling"] * 3
        assert taken == [0, 1, 2, 3]

    async def test_an_error_stops_an_async_source(self) -> None:
        """The task that reads an async iterable ends with the fan-out."""
        closed = anyio.Event()

        async def source() -> AsyncIterator[int]:
            try:
                yield 1
                await anyio.sleep_forever()
            finally:
                closed.set()

        async with Engine():
            stream = fail_if_odd_async.stream(source(), limit=4)
            await expect_error(stream, "1 is odd")
            await closed.wait()

    def test_an_error_cancels_the_siblings_in_sync_code(self) -> None:
        """A plain for stops alike, without waiting for bodies that block."""
        opened = threading.Event()

        @task
        def body(x: int) -> None:
            if x == 1:
                raise ValueError("the first error")
            opened.wait(10)

        @flow
        def run() -> list[RunHandle[None]]:
            return list(body.stream(range(3), limit=3))

        with pytest.raises(ValueError, match="the first error"):
            run()
        opened.set()

    async def test_errors_can_be_let_be(self) -> None:
        """With on_error="continue" failed runs are given like any other."""
        async with Engine():
            stream = fail_if_odd_async.stream(range(6), limit=2, on_error="continue")
            names = sorted([handle.state.name async for handle in stream])
        assert names == ["Completed"] * 3 + ["Failed"] * 3

    async def test_leaving_its_block_cancels_what_is_left(self) -> None:
        """An async with around a stream waits for its runs to have stopped."""
        gates = Gates()
        async with Engine() as engine:
            async with gates.task.stream(range(10), limit=4) as stream:
                gates.open(0)
                async for handle in stream:
                    assert await handle == 0
                    break
            assert gates.inside == 0
            assert engine.statistics().live_runs == 0

    async def test_dropping_it_cancels_what_is_left(self) -> None:
        """A stream that was left by break and forgotten leaves nothing behind."""
        gates = Gates()
        async with Engine():
            gates.open(0)
            async for handle in gates.task.stream(range(10), limit=4):
                assert await handle == 0
                break
            gc.collect()
            await anyio.wait_all_tasks_blocked()
            assert gates.inside == 0

    async def test_failures_given_by_a_stream_are_observed(self) -> None:
        """What a reader was handed is no unobserved failure of the flow."""

        @flow
        async def body() -> None:
            async for _ in fail_if_odd_async.stream(range(4), on_error="continue"):
                pass

        async with Engine() as engine:
            handle = engine.start(body)
            await handle
            assert handle.unobserved == ()

    async def test_it_is_a_child_of_its_flow(self) -> None:
        """The runs of a stream belong to the flow that streams."""

        @flow
        async def body() -> list[Any]:
            return [h.run.parent_run_id async for h in double.stream([1, 2])]

        async with Engine() as engine:
            handle = engine.start(body)
            assert await handle == [handle.id] * 2

    def test_an_async_iterable_needs_async_for(self) -> None:
        """A plain for over a stream of async items is refused at once."""
        with Engine(), pytest.raises(TypeError, match="needs 'async for'"):
            iter(double.stream(arriving([1])))

    @pytest.mark.parametrize(
        ("options", "error", "text"),
        [
            ({"limit": 0}, ValueError, "limit must be >= 1, got 0"),
            ({"limit": 1.5}, TypeError, "limit must be a whole number, got 1.5"),
            ({"limit": True}, TypeError, "limit must be a whole number, got True"),
            ({"on_error": "stop"}, ValueError, "'cancel' or 'continue', got 'stop'"),
        ],
    )
    def test_bad_options_are_refused(
        self, options: dict[str, Any], error: type[Exception], text: str
    ) -> None:
        """Before anything runs."""
        with Engine(), pytest.raises(error, match=text):
            double.stream([1], **options)

    def test_what_is_no_iterable_is_refused(self) -> None:
        """A stream over a number says what it takes."""
        with Engine(), pytest.raises(TypeError, match="iterable, got int"):
            double.stream(3)  # type: ignore[arg-type]

    async def test_it_needs_an_engine(self) -> None:
        """Outside of any engine there is nobody to own the runs."""
        with pytest.raises(NoEngineError):
            async for _ in double.stream([1]):
                pass
        with pytest.raises(NoEngineError):
            async for _ in double.stream(arriving([1])):
                pass


async def arriving(items: Any, taken: list[Any] | None = None) -> AsyncIterator[Any]:
    for item in items:
        await anyio.lowlevel.checkpoint()
        if taken is not None:
            taken.append(item)
        yield item


async def expect_error(stream: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        async for _ in stream:
            pass


class TestAsCompleted:
    async def test_it_gives_handles_in_the_order_in_which_runs_end(self) -> None:
        """Those that have ended already come first."""
        gates = Gates()
        async with Engine():
            handles = [gates.task.submit(key) for key in range(3)]
            gates.open(2)
            await handles[2]
            found = []
            async for handle in as_completed(handles):
                found.append(handle)
                gates.open(0 if len(found) == 2 else 1)
            assert found == [handles[2], handles[1], handles[0]]

    def test_it_works_in_sync_code(self) -> None:
        """A sync flow iterates with a plain for; its runs end in any order."""

        @flow
        def body() -> list[int]:
            return [h.result() for h in as_completed(double.map([1, 2, 3]))]

        assert sorted(body()) == [2, 4, 6]

    def test_each_handle_is_given_once(self) -> None:
        """Duplicates count as one, and nothing gives nothing."""
        with Engine():
            handle = double.submit(1)
            assert list(as_completed([handle, handle])) == [handle]
            assert list(as_completed([])) == []

    async def test_it_takes_so_long_at_most(self) -> None:
        """TimeoutError tells how many of the runs are unfinished."""
        gates = Gates()
        async with Engine():
            handles = [gates.task.submit(key) for key in range(3)]
            gates.open(0)
            await handles[0]
            found = aiter(as_completed(handles, timeout=0.002))
            assert await anext(found) == handles[0]
            with pytest.raises(TimeoutError, match=r"2 \(of 3\) runs unfinished"):
                await anext(found)
            gates.open(1, 2)

    def test_it_takes_so_long_at_most_in_sync_code(self) -> None:
        """The same when it blocks."""
        opened = threading.Event()
        blocked = task(lambda: opened.wait(10))
        with Engine():
            handles = [blocked.submit()]
            with pytest.raises(TimeoutError, match=r"1 \(of 1\) runs unfinished"):
                list(as_completed(handles, timeout=0.002))
            opened.set()

    async def test_blocking_on_the_loop_is_refused(self) -> None:
        """A plain for on the loop's thread says to await."""
        gates = Gates()
        async with Engine():
            handle = gates.task.submit(0)
            with pytest.raises(BlockingCallError, match="await"):
                list(as_completed([handle]))
            gates.open(0)

    async def test_failures_are_observed(self) -> None:
        """Whoever reads a handle has seen how its run ended; nothing is raised."""

        @flow
        async def body() -> list[str]:
            handles = fail_if_odd_async.map([0, 1])
            return sorted([h.state.name async for h in as_completed(handles)])

        async with Engine() as engine:
            handle = engine.start(body)
            assert await handle == ["Completed", "Failed"]
            assert handle.unobserved == ()


class TestWait:
    def test_it_tells_the_done_from_the_others(self) -> None:
        """It blocks until all are done, or the time is up."""
        opened = threading.Event()
        blocked = task(lambda: opened.wait(10))
        with Engine():
            quick, slow = double.submit(1), blocked.submit()
            quick.wait()
            done, not_done = wait([quick, slow], timeout=0.002)
            assert (done, not_done) == ({quick}, {slow})
            opened.set()
            assert wait([quick, slow]) == ({quick, slow}, set())
            assert wait([]) == (set(), set())

    def test_it_raises_no_runs_error(self) -> None:
        """Failed runs are done."""
        with Engine():
            handle = fail_if_odd.submit(1)
            assert wait([handle]).done == {handle}

    @pytest.mark.parametrize("call", [wait, as_completed])
    @pytest.mark.parametrize("timeout", [-1, float("nan")])
    def test_bad_timeouts_are_refused(self, call: Any, timeout: float) -> None:
        """At the call, before anything is waited for."""
        with pytest.raises(ValueError, match="timeout must be >= 0 seconds"):
            call([], timeout=timeout)

    async def test_blocking_on_the_loop_is_refused(self) -> None:
        """The loop that has to end the run is not blocked."""
        gates = Gates()
        async with Engine():
            handle = gates.task.submit(0)
            with pytest.raises(BlockingCallError):
                wait([handle])
            gates.open(0)


async def test_sync_flows_nest_fan_outs_deeply() -> None:
    """Sync tasks that submit and wait for sync tasks never run out of threads."""

    @task
    def tree(depth: int) -> int:
        if not depth:
            return 1
        handles: list[RunHandle[int]] = [tree.submit(depth - 1) for _ in range(3)]
        return sum(handle.result() for handle in handles)

    async with Engine():
        assert await tree.submit(4) == 81


def test_states_of_a_map_judge_a_flow() -> None:
    """A flow that returns its map is judged by all of its runs."""

    @flow
    def body() -> Any:
        return fail_if_odd.map([0, 1, 2, 3])

    states: list[State[int]] = body()
    assert [s.name for s in states] == ["Completed", "Failed", "Completed", "Failed"]
    assert body(return_state=True).message == "2/4 states failed."
