"""Tasks: called in place, submitted elsewhere, and asked through their handles."""

import contextvars
import inspect
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from support import Notes, Way, in_every_way

from engine import Engine, RunHandle, State, StateType, TaskRun, flow, runtime, task
from engine.exceptions import (
    BlockingCallError,
    CancelledRun,
    CrashedRun,
    NoEngineError,
    ReturnStateError,
    UnfinishedRun,
)


@task
def double(x: int) -> int:
    return 2 * x


@task
async def triple(x: int) -> int:
    await anyio.lowlevel.checkpoint()
    return 3 * x


@task
def fail(text: str = "meh") -> None:
    raise ValueError(text)


@task
def thread_id() -> int:
    return threading.get_ident()


@task
async def thread_id_of_loop() -> int:
    return threading.get_ident()


class Gate:
    """A task that waits until it is let go, from whichever thread."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.task = task(self.body)

    def body(self, value: Any = None) -> Any:
        self.entered.set()
        assert self.opened.wait(10)
        return value


class TestInPlace:
    @in_every_way
    def test_a_task_needs_no_flow(self, way: Way) -> None:
        """Called outside of any flow and engine, a task makes a run of its own."""
        runs = []
        made = way.task(lambda x: x, on_completion=[lambda t, run, s: runs.append(run)])
        assert way.call(made, 1) == 1
        [run] = runs
        assert isinstance(run, TaskRun)
        assert (run.flow_run_id, run.parent_run_id) == (None, None)

    async def test_tasks_of_both_kinds_work_in_an_async_flow(self) -> None:
        """An async flow awaits async tasks and just calls sync ones."""

        @flow
        async def body() -> list[int]:
            return [double(1), await triple(1)]

        assert await body() == [2, 3]

    def test_an_async_task_in_a_sync_flow_gives_a_coroutine(self) -> None:
        """Nothing is awaited behind the user's back."""

        @flow
        def body() -> bool:
            coroutine = triple(1)
            coroutine.close()
            return inspect.iscoroutine(coroutine)

        assert body() is True

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_a_sync_flow_may_run_a_loop_of_its_own(self, backend: str) -> None:
        """An async task in a loop that a sync flow runs is a child of the flow."""

        @task
        async def parent_id() -> str | None:
            await anyio.lowlevel.checkpoint()
            return runtime.task_run.parent_run_id

        @flow
        def body() -> bool:
            return anyio.run(parent_id, backend=backend) == runtime.flow_run.id

        assert body() is True

    def test_a_task_may_call_tasks_and_flows(self) -> None:
        """Any run can have any kind of children."""
        lower = flow(lambda: double(1))
        upper = task(lambda: (lower(), double(2)))
        assert flow(lambda: upper())() == (2, 4)

    @in_every_way
    def test_a_hook_may_call_tasks(self, way: Way) -> None:
        """What a hook runs belongs to the tree of its run without holding it up."""
        seen = []

        def hook(_: Any, run: Any, __: Any) -> None:
            child = task(on_running=[lambda t, r, s: seen.append(r)])(lambda: None)
            child()
            seen.append(run)

        way.call(way.flow(lambda: None, on_completion=[hook]))
        child, parent = seen
        assert child.parent_run_id == parent.id


class TestSubmit:
    async def test_it_returns_at_once(self) -> None:
        """The run is still Pending when submit returns."""

        @flow
        async def body() -> tuple[str, int]:
            handle = triple.submit(2)
            return handle.state.name, await handle

        assert await body() == ("Pending", 6)

    async def test_sync_bodies_never_run_on_the_loop(self) -> None:
        """A submitted sync task runs in a worker thread, an async one on the loop."""

        @flow
        async def body() -> tuple[int, int]:
            return await thread_id.submit(), await thread_id_of_loop.submit()

        worker, loop = await body()
        assert loop == threading.get_ident() != worker

    def test_sync_flows_can_submit(self) -> None:
        """From a plain thread, tasks of both kinds run elsewhere."""

        @flow
        def body() -> list[int]:
            handles = [thread_id.submit(), thread_id_of_loop.submit()]
            return [handle.result() for handle in handles]

        assert threading.get_ident() not in body()

    async def test_sync_flows_on_a_loop_can_submit(self) -> None:
        """A sync flow that holds the loop waits for both kinds without a deadlock."""

        @flow
        def body() -> list[int]:
            handles: list[RunHandle[int]] = [double.submit(1), triple.submit(1)]
            return [handle.result(timeout=10) for handle in handles]

        assert body() == [2, 3]
        async with Engine():
            assert body() == [2, 3]

    async def test_submitted_sync_flows_can_submit(self) -> None:
        """A sync flow in a worker thread uses the engine's loop for its async tasks."""

        @flow
        def body() -> tuple[int, int]:
            return triple.submit(1).result(), thread_id_of_loop.submit().result()

        async with Engine() as engine:
            assert await engine.start(body) == (3, threading.get_ident())

    async def test_arguments_that_do_not_fit_fail_the_run(self) -> None:
        """Submitting with wrong arguments gives the handle of a failed run."""
        async with Engine():
            handle = double.submit(1, 2)  # type: ignore[call-arg]
            state = await handle.join()
        assert (state.type, state.cause) == (StateType.FAILED, "arguments")
        with pytest.raises(TypeError, match=r"double\(\)"):
            state.result()

    async def test_the_context_goes_along(self) -> None:
        """A submitted run sees the caller's context variables as they were then."""
        variable = contextvars.ContextVar("variable", default=0)
        read = task(lambda: variable.get())

        @task
        async def read_async() -> int:
            return variable.get()

        async with Engine():
            variable.set(1)
            handles = [read.submit(), read_async.submit()]
            variable.set(2)
            assert [await handle for handle in handles] == [1, 1]

    async def test_a_run_does_not_change_its_caller_context(self) -> None:
        """What a submitted body sets stays in its own copy of the context."""
        variable = contextvars.ContextVar("variable", default=0)
        async with Engine():
            await task(lambda: variable.set(1)).submit()
        assert variable.get() == 0

    async def test_submitting_beside_an_engine_makes_a_top_level_run(self) -> None:
        """Inside of an engine's block a task can be submitted without a flow."""
        async with Engine():
            handle = double.submit(1)
            assert await handle == 2
            assert handle.run.parent_run_id is None

    def test_submitting_without_an_engine_is_refused(self) -> None:
        """Nobody would own the run, and the error says what to do."""
        with pytest.raises(NoEngineError, match=r"double\.submit\(\) needs .*Engine"):
            double.submit(1)
        with pytest.raises(RuntimeError):
            double.map([1])

    async def test_a_stopped_flow_starts_nothing_more(self) -> None:
        """A sync body that goes on after its run was cancelled cannot submit."""
        gate = Gate()
        errors = []

        @flow
        def body() -> None:
            gate.body()
            try:
                double.submit(1)
            except CancelledRun as error:
                errors.append(error)
            done.set()

        done = threading.Event()
        async with Engine() as engine:
            handle = engine.start(body)
            await anyio.to_thread.run_sync(gate.entered.wait)
            handle.cancel()
            assert (await handle.join()).is_cancelled()
            assert engine.statistics().abandoned_threads == 1
            gate.opened.set()
            await anyio.to_thread.run_sync(done.wait)
        [error] = errors
        assert error.cause == "user"

    @pytest.mark.parametrize("call", ["submit", "map", "stream"])
    async def test_asking_a_submission_for_the_state_is_refused(
        self, call: str
    ) -> None:
        """At once, and not by a run that fails for it where nobody looks."""
        async with Engine() as engine:
            with pytest.raises(ReturnStateError) as caught:
                getattr(double, call)([1], return_state=True)
            assert isinstance(caught.value, TypeError)
            assert str(caught.value) == (
                f"double.{call}() takes no return_state, because it does not wait for a"
                " run: 'await handle.join()' gives the state, handle.wait() in sync"
                " code"
            )
            assert engine.runs() == []
            assert await double.submit(1, return_state=False) == 2


class TestHandle:
    async def test_it_awaits_to_the_value(self) -> None:
        """A handle can be awaited any number of times, also long after the run."""
        async with Engine():
            handle = double.submit(1)
            assert await handle == 2
            assert await handle == 2
        assert await handle == 2
        assert handle.result() == 2
        assert handle.state.result() == 2

    async def test_it_awaits_to_the_error(self) -> None:
        """Awaiting raises the object that the body raised; join does not raise."""
        async with Engine():
            handle = fail.submit("mine")
            state = await handle.join()
            assert state is handle.state
            assert state.is_failed()
            with pytest.raises(ValueError, match=r"^mine$") as caught:
                await handle
            assert caught.value is state.data

    async def test_it_knows_its_run(self) -> None:
        """Identity, name, state, and what became of the hooks."""
        notes = Notes()
        named = task(name="named", on_completion=[notes.hook("mine")])(lambda x: x)
        async with Engine() as engine:
            handle = named.submit(1)
            other = named.submit(2)
            await handle
            await other
        assert handle.id == handle.run.id != other.id
        assert handle.name == handle.run.name
        assert handle.name.startswith("named-")
        assert handle.run.parameters == {"x": 1}
        assert handle.run.state is handle.state
        [outcome] = handle.hook_outcomes
        assert (outcome.hook, outcome.kind, outcome.status) == (
            "note",
            "on_completion",
            "delivered",
        )
        assert (outcome.run_id, outcome.state) == (handle.id, "Completed")
        assert outcome.attempts == 1
        assert repr(handle) == f"<RunHandle {handle.name!r} id={handle.id} Completed>"
        assert handle != other
        assert handle != handle.id
        assert len({handle, other, handle}) == 2
        assert engine.runs(name="named")[0].id in {handle.id, other.id}

    async def test_giving_up_waiting_leaves_the_run_alone(self) -> None:
        """A cancelled wait cancels the wait, not the run."""
        release = anyio.Event()

        @task
        async def slow() -> int:
            await release.wait()
            return 1

        async with Engine():
            handle = slow.submit()
            await anyio.wait_all_tasks_blocked()
            for wait in (handle.join, partial(wait_for, handle)):
                async with anyio.create_task_group() as group:
                    group.start_soon(wait)
                    await anyio.wait_all_tasks_blocked()
                    group.cancel_scope.cancel()
            assert handle.state.is_running()
            release.set()
            assert await handle == 1

    async def test_many_can_wait(self) -> None:
        """Everybody who waits for a run gets its value, also from other threads."""
        gate = Gate()
        values = []

        async def wait() -> None:
            values.append(await handle)

        async def wait_in_thread() -> None:
            values.append(await anyio.to_thread.run_sync(handle.result))

        async with Engine():
            handle = gate.task.submit(5)
            async with anyio.create_task_group() as group:
                for waiter in (wait, wait, wait_in_thread, wait_in_thread):
                    group.start_soon(waiter)
                await anyio.wait_all_tasks_blocked()
                gate.opened.set()
        assert values == [5, 5, 5, 5]

    def test_wait_blocks_for_a_time(self) -> None:
        """Waiting gives the state it finds when the time is up, and raises nothing."""
        gate = Gate()
        with Engine():
            handle = gate.task.submit(1)
            gate.entered.wait()
            assert handle.wait(timeout=0).is_running()
            assert handle.wait(timeout=0.001).is_running()
            gate.opened.set()
            assert handle.wait().is_completed()
            assert fail.submit().wait(timeout=10).is_failed()

    def test_result_blocks_for_a_time(self) -> None:
        """TimeoutError says that the time is up, and the run goes on."""
        gate = Gate()
        with Engine():
            handle = gate.task.submit(1)
            gate.entered.wait()
            with pytest.raises(TimeoutError, match="not done after"):
                handle.result(timeout=0.001)
            gate.opened.set()
            assert handle.result() == 1

    def test_result_can_return_the_error(self) -> None:
        """With raise_on_failure=False the exception is given instead of raised."""
        with Engine():
            handle = fail.submit("mine")
            error = handle.result(raise_on_failure=False)
            assert error is handle.state.data
            with pytest.raises(ValueError, match="mine"):
                handle.result()

    async def test_blocking_on_the_loop_is_refused(self) -> None:
        """Blocking calls on the loop that the run needs say to await instead."""
        gate = Gate()

        @flow
        async def body() -> None:
            handles = [gate.task.submit(3), triple.submit(1)]
            for handle in handles:
                with pytest.raises(BlockingCallError, match="'await' the handle"):
                    handle.result()
                with pytest.raises(RuntimeError, match=r"handle\.wait\(\)"):
                    handle.wait()
            gate.opened.set()
            for handle in handles:
                await handle
                assert handle.wait().is_completed()
                assert handle.result() == 3

        await body()

    async def test_a_crash_is_raised_as_it_was(self) -> None:
        """Awaiting gives the SystemExit itself, the state's result a CrashedRun."""

        @task
        async def die() -> None:
            raise SystemExit(3)

        async with Engine():
            handle = die.submit()
            state = await handle.join()
            with pytest.raises(SystemExit) as caught:
                await handle
            assert caught.value.code == 3
            with pytest.raises(CrashedRun, match="system exit") as crashed:
                state.result()
        assert crashed.value.__cause__ is caught.value
        assert state.cause == "SystemExit"

    async def test_a_state_without_a_result_says_so(self) -> None:
        """Asking a state that is not terminal for its result is an error."""
        async with Engine():
            handle = triple.submit(1)
            with pytest.raises(UnfinishedRun, match="Pending"):
                handle.state.result()
            await handle

    async def test_a_state_is_one_value_whoever_asks_and_when(self) -> None:
        """What was seen before anybody listened is what transitions then lead from."""
        entered, opened = anyio.Event(), anyio.Event()

        @task
        async def body() -> None:
            entered.set()
            await opened.wait()

        async with Engine() as engine:
            handle = body.submit()
            pending = handle.state
            await entered.wait()
            running = handle.state
            async with engine.subscribe() as transitions:
                opened.set()
                await handle
                transition = await anext(aiter(transitions))
        seen = [(s.name, s.attempt, s.run_id) for s in (pending, running)]
        assert seen == [("Pending", 0, handle.id), ("Running", 1, handle.id)]
        assert pending.timestamp == handle.run.expected_start_time
        assert running.timestamp == handle.run.start_time
        assert transition.previous is running
        assert transition.state is handle.state
        assert pending.timestamp < running.timestamp < handle.state.timestamp


async def wait_for(handle: RunHandle[Any]) -> Any:
    return await handle


@task
async def forever(entered: Callable[[], Any] | None = None) -> None:
    if entered is not None:
        entered()
    await anyio.sleep_forever()


class TestCancel:
    async def test_a_running_task_is_cancelled(self) -> None:
        """Cancelling only asks: the run stops on its own, through Cancelling."""
        notes = Notes()
        noted = forever.with_options(**notes.hooks())
        async with Engine():
            handle = noted.submit()
            await anyio.wait_all_tasks_blocked()
            handle.cancel(reason="user left")
            assert handle.state.is_cancelling()
            state = await handle.join()
        assert (state.type, state.cause, state.message) == (
            StateType.CANCELLED,
            "user",
            "user left",
        )
        assert notes == [("on_running", "Running"), ("on_cancellation", "Cancelling")]

    async def test_asking_twice_changes_nothing(self) -> None:
        """The first reason stays, and a run that has ended is left as it is."""
        notes = Notes()
        async with Engine():
            handle = forever.with_options(**notes.hooks()).submit()
            await anyio.wait_all_tasks_blocked()
            handle.cancel("first")
            handle.cancel("second")
            state = await handle.join()
            handle.cancel("third")
            assert handle.state is state
            done = double.submit(1)
            await done
            done.cancel()
            assert done.state.is_completed()
        assert state.message == "first"
        assert notes.count(("on_cancellation", "Cancelling")) == 1

    async def test_a_pending_run_is_cancelled_before_it_starts(self) -> None:
        """A run that is cancelled before its body begins never begins it."""
        entered = []
        notes = Notes()
        async with Engine():
            handle = forever.with_options(**notes.hooks()).submit(
                lambda: entered.append(1)
            )
            assert handle.state.is_pending()
            handle.cancel()
            state = await handle.join()
        assert state.is_cancelled()
        assert state.attempt == 0
        assert not entered
        assert notes == [("on_cancellation", "Cancelling")]

    async def test_children_are_cancelled_first(self) -> None:
        """A cancelled flow's children stop with cause parent, before it does."""
        ended = []

        def note(_: Any, run: Any, state: State[Any]) -> None:
            ended.append((type(run).__name__, state.name, state.cause))

        child = forever.with_options(on_cancellation=[note])

        @flow(on_cancellation=[note])
        async def body() -> None:
            child.submit()
            await child()

        async with Engine() as engine:
            handle = engine.start(body)
            await anyio.wait_all_tasks_blocked()
            handle.cancel()
            await handle.join()
            records = engine.runs()
        assert sorted(ended) == [
            ("FlowRun", "Cancelling", "user"),
            ("TaskRun", "Cancelling", "parent"),
            ("TaskRun", "Cancelling", "parent"),
        ]
        assert [r.kind for r in records] == ["task", "task", "flow"]  # type: ignore[union-attr]
        assert {r.state_name for r in records} == {"Cancelled"}

    async def test_it_can_be_asked_from_any_thread(self) -> None:
        """A worker thread can cancel a run that waits on the loop."""
        async with Engine():
            handle = forever.submit()
            await anyio.wait_all_tasks_blocked()
            await anyio.to_thread.run_sync(handle.cancel)
            assert (await handle.join()).is_cancelled()

    async def test_a_body_may_clean_up(self) -> None:
        """Cancelled is entered only after the body's own clean-up."""
        order = []

        @task(on_cancellation=[lambda *_: order.append("hook")])
        async def tidy() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await release.wait()
                order.append("tidied")

        release = anyio.Event()
        async with Engine():
            handle = tidy.submit()
            await anyio.wait_all_tasks_blocked()
            handle.cancel()
            await anyio.wait_all_tasks_blocked()
            assert handle.state.is_cancelling()
            release.set()
            await handle.join()
            order.append(handle.state.name)
        assert order[-2:] == ["tidied", "Cancelled"]
        assert sorted(order) == ["Cancelled", "hook", "tidied"]

    async def test_a_blocked_thread_is_given_up(self) -> None:
        """A sync body cannot be stopped: it is Cancelled at once, its value dropped."""
        gate = Gate()
        async with Engine() as engine:
            handle = gate.task.submit("late")
            await anyio.to_thread.run_sync(gate.entered.wait)
            handle.cancel()
            state = await handle.join()
            assert state.is_cancelled()
            assert engine.statistics().abandoned_threads == 1
            gate.opened.set()
            while engine.statistics().abandoned_threads:
                await anyio.lowlevel.checkpoint()
            assert handle.state is state


class TestWhereAmI:
    async def test_a_task_in_a_thread_knows_its_flow(self) -> None:
        """The current runs are known in worker threads too."""
        ids = task(lambda: (runtime.flow_run.id, runtime.task_run.id))

        @flow
        async def body() -> Any:
            handle = ids.submit()
            return runtime.flow_run.id, handle.id, await handle

        flow_id, task_id, found = await body()
        assert found == (flow_id, task_id)

    async def test_children_of_tasks_in_threads_join_the_tree(self) -> None:
        """What a submitted sync task calls is its child."""
        inner = task(lambda: runtime.task_run.parent_run_id)
        outer = task(lambda: (runtime.task_run.id, inner(), inner.submit().result()))
        async with Engine():
            mine, one, two = await outer.submit()
        assert mine == one == two
