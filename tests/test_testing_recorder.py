"""The recorder: what it sees, what it says of it, and that nobody notices it."""

import gc
import threading
import weakref
from typing import Any

import anyio
import pytest

from engine import Engine, StateType, flow, task
from engine.testing import record

pytestmark = pytest.mark.anyio


@task
async def fetch(x: int = 0) -> int:
    if x < 0:
        raise ValueError(x)
    return x


@flow
async def crawl(*xs: int) -> list[int]:
    return await fetch.map(xs)


async def note(definition: Any, run: Any, state: Any) -> None:
    pass


async def fail(definition: Any, run: Any, state: Any) -> None:
    raise LookupError(state.name)


PASSED = ["Pending", "Running", "Completed"]


class TestRecording:
    async def test_nothing_is_lost(self) -> None:
        """The recorder has as many transitions as the engine has made, in their order.

        That many would fill any subscriber's default buffer.
        """
        async with Engine() as engine:
            with record(engine) as recorder:
                await engine.run(crawl, *range(500))
            recorded = recorder.transitions()
            assert [t.sequence for t in recorded] == list(range(1, 3 * 501 + 1))
            assert engine.statistics().transitions == len(recorded)

    async def test_it_begins_before_the_engine_and_outlives_it(self) -> None:
        """An engine can be recorded from before it is entered until it is closed."""
        engine = Engine()
        recorder = record(engine)
        async with engine:
            engine.start(crawl, 1)
        assert recorder.states(crawl) == PASSED
        assert recorder.states(fetch) == PASSED

    async def test_it_stops_with_its_block(self) -> None:
        """What happens after the block is not recorded, what was recorded stays."""
        async with Engine() as engine:
            with record(engine) as recorder:
                await engine.run(fetch)
            await engine.run(crawl)
        assert recorder.states(fetch) == PASSED
        assert recorder.runs(crawl) == []
        assert engine.statistics().buffers == ()

    def test_sync_runs_are_recorded(self) -> None:
        """The same recorder works without any loop."""

        @task
        def double(x: int) -> int:
            return 2 * x

        with Engine() as engine, record(engine) as recorder:
            double(1)
        assert recorder.states("double") == PASSED

    async def test_two_engines_do_not_mix(self) -> None:
        """A recorder sees the runs of its own engine only."""
        async with Engine() as one, Engine() as other:
            with record(one) as recorder:
                await other.run(fetch, 1)
                handle = one.start(fetch, 2)
                await handle
        assert recorder.runs() == [handle]

    async def test_runs_do_not_wait_for_it(self) -> None:
        """A run makes its steps when it would without a recorder."""

        async def rounds(*, recorded: bool) -> list[list[str]]:
            seen: list[str] = []

            @task
            async def walk() -> None:
                for i in range(3):
                    seen.append(f"step {i}")
                    await anyio.lowlevel.checkpoint()

            async with Engine() as engine:
                if recorded:
                    record(engine)
                engine.start(walk)
                for i in range(3):
                    await anyio.lowlevel.checkpoint()
                    seen.append(f"round {i}")
            # Who comes first in a round is left to chance on trio.
            return [sorted(seen[i : i + 2]) for i in range(0, 6, 2)]

        assert await rounds(recorded=True) == await rounds(recorded=False)

    async def test_runs_are_freed_with_it(self) -> None:
        """The recorder keeps runs alive, and nothing keeps the recorder."""

        class Thing:
            pass

        @task
        async def make() -> Thing:
            return Thing()

        gc.disable()
        try:
            async with Engine() as engine:
                recorder = record(engine)
                thing = weakref.ref(await engine.run(make))
                assert thing() is not None
                recorder.stop()
                del recorder
                assert thing() is None
        finally:
            gc.enable()


class TestQueries:
    async def test_runs_by_what_names_them(self) -> None:
        """A run is found by its handle, view, id and name; several by what they are."""
        async with Engine() as engine:
            recorder = record(engine)
            handle = engine.start(crawl, 1, 2)
            await handle
            for which in (handle, handle.run, handle.id, handle.name, crawl, "crawl"):
                assert recorder.runs(which) == [handle]
            one, two = recorder.runs(fetch)
            assert (one.state.result(), two.state.result()) == (1, 2)
            assert recorder.runs(one.name) == [one]
            assert recorder.runs() == [handle, one, two]
            assert recorder.runs("nobody") == []

    async def test_runs_of_a_function_whatever_its_options(self) -> None:
        """A task stands for its copies with other options, a name for itself only."""
        impatient = fetch.with_options(name="impatient", timeout_seconds=1)
        async with Engine() as engine:
            recorder = record(engine)
            await engine.run(fetch, 1)
            await engine.run(impatient, 2)
        assert len(recorder.runs(fetch)) == len(recorder.runs(impatient)) == 2
        assert recorder.states("impatient") == PASSED

    async def test_runs_of_methods(self) -> None:
        """A method's task stands for all instances, a bound one for its own."""

        class Site:
            @task
            async def fetch(self) -> "Site":
                return self

        one, other = Site(), Site()
        async with Engine() as engine:
            recorder = record(engine)
            await engine.run(one.fetch)
            await engine.run(other.fetch)
        assert len(recorder.runs(Site.fetch)) == 2
        (run,) = recorder.runs(other.fetch)
        assert run.state.result() is other

    async def test_transitions_of_some_runs(self) -> None:
        """Transitions can be had of all runs, or of those that are meant."""
        async with Engine() as engine:
            recorder = record(engine)
            await engine.run(crawl, 1, 2)
        types = [t.state.type for t in recorder.transitions(crawl)]
        assert types == [StateType.PENDING, StateType.RUNNING, StateType.COMPLETED]
        assert len(recorder.transitions(fetch)) == 6
        assert len(recorder.transitions()) == 9

    async def test_the_states_of_no_one_run(self) -> None:
        """States are those of one run: for none or several there is a clear error."""
        async with Engine() as engine:
            recorder = record(engine)
            await engine.run(crawl, 1, 2)
        with pytest.raises(LookupError, match=r"2 runs .* task 'fetch' .* 'fetch-2', "):
            recorder.states(fetch)
        with pytest.raises(LookupError, match=r"0 runs .* called 'fecth'.* of nothing"):
            recorder.states("fecth")

    async def test_hook_outcomes(self) -> None:
        """Outcomes are had by run, kind and status, in the order they were owed."""
        hooked = fetch.with_options(on_running=[note, fail], on_completion=[note])
        async with Engine() as engine:
            recorder = record(engine)
            first, second = engine.start(hooked, 1), engine.start(hooked, 2)
            await first
            await second

        def names(*which: Any, **only: Any) -> list[tuple[str, str]]:
            return [(o.hook, o.state) for o in recorder.hooks(*which, **only)]

        due = [("note", "Running"), ("fail", "Running"), ("note", "Completed")]
        assert names(first) == names(second) == due
        assert len(names()) == len(names(fetch)) == 6
        assert names(kind="on_completion") == [("note", "Completed")] * 2
        assert names(second, status="failed") == [("fail", "Running")]
        assert names(kind="on_failure") == names("nobody") == []
        sequences = [outcome.sequence for outcome in recorder.hooks()]
        assert sequences == sorted(sequences)


class TestAssertStates:
    async def test_it_passes_for_the_way_that_was_gone(self) -> None:
        """Each of the runs that are meant has to have gone the expected way."""
        async with Engine() as engine:
            recorder = record(engine)
            await engine.run(crawl, 1, 2, 3)
        recorder.assert_states(crawl, PASSED)
        recorder.assert_states("fetch", iter(PASSED))

    async def test_the_difference_is_shown(self) -> None:
        """The message names the run that went another way, and shows where."""
        async with Engine() as engine:
            recorder = record(engine)
            assert await engine.start(fetch, 1).join()
            await engine.start(fetch, -2).join()
        with pytest.raises(AssertionError) as caught:
            recorder.assert_states(fetch, PASSED)
        assert str(caught.value) == (
            "run 'fetch-2' went another way than expected"
            " (- is missing, + is too much):\n"
            "    Pending\n"
            "    Running\n"
            "  - Completed\n"
            "  + Failed('Task run encountered an exception: ValueError: -2')"
        )

    async def test_states_too_many_and_too_few(self) -> None:
        """A state that is missing, or too much, anywhere, is a difference."""
        async with Engine() as engine:
            recorder = record(engine)
            await engine.run(fetch)
        with pytest.raises(AssertionError, match=r"\n  - Retrying\n    Completed$"):
            recorder.assert_states("fetch", [*PASSED[:2], "Retrying", PASSED[2]])
        with pytest.raises(AssertionError, match=r"\n    Running\n  \+ Completed\(\)$"):
            recorder.assert_states("fetch", PASSED[:2])

    async def test_a_run_that_never_was(self) -> None:
        """States of a run that was not recorded are never as expected."""
        async with Engine() as engine:
            recorder = record(engine)
            with pytest.raises(AssertionError, match="task 'fetch' was never recorded"):
                recorder.assert_states(fetch, [])
            await engine.run(crawl, 1)
            with pytest.raises(
                AssertionError, match=r"'nobody' .*, only .*, 'fetch-2'"
            ):
                recorder.assert_states("nobody", PASSED)


class TestWaiting:
    async def test_for_a_state_to_come(self) -> None:
        """The wait ends when the run enters the state, and gives the transition."""
        release = anyio.Event()

        @task
        async def wait() -> None:
            await release.wait()

        async with Engine() as engine:
            recorder = record(engine)
            with anyio.fail_after(5):
                handle = engine.start(wait)
                running = await recorder.wait_for("wait", "Running")
                assert handle.state is running.state
                release.set()
                ended = await recorder.wait_for(handle, StateType.COMPLETED)
        assert (running.sequence, ended.sequence) == (2, 3)

    async def test_for_a_run_to_come(self) -> None:
        """A run can be waited for by its name before it is made."""
        async with Engine() as engine, anyio.create_task_group() as group:
            recorder = record(engine)
            seen: list[int] = []

            async def wait() -> None:
                seen.append((await recorder.wait_for(fetch, "Pending")).sequence)

            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            await engine.run(crawl, 1)
        assert seen == [3]

    async def test_for_what_has_been(self) -> None:
        """A state that was entered before ends the wait at once."""
        async with Engine() as engine:
            recorder = record(engine)
            await engine.run(crawl, 1, 2)
            assert (await recorder.wait_for("fetch", "Running")).state.attempt == 1
        assert (await recorder.wait_for(crawl, "Pending")).sequence == 1

    async def test_for_what_cannot_be_any_more(self) -> None:
        """The wait for a run that ended otherwise fails, and says how it ended."""
        async with Engine() as engine:
            recorder = record(engine)
            handle = engine.start(fetch)
            with (
                anyio.fail_after(5),
                pytest.raises(AssertionError, match=r"'Failed', only: Pending, Run"),
            ):
                await recorder.wait_for(handle, "Failed")

    async def test_for_what_never_comes(self) -> None:
        """The end of the engine, or of the recorder, ends the wait."""
        engine = Engine()
        recorder = record(engine)

        async def wait() -> None:
            with pytest.raises(AssertionError, match=r"'x' did not .* only: nothing$"):
                await recorder.wait_for("x", StateType.FAILED)

        async with anyio.create_task_group() as group, engine:
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(5):
            await wait()

    async def test_giving_up(self) -> None:
        """A wait that is cancelled is forgotten."""
        async with Engine() as engine:
            recorder = record(engine)
            with anyio.move_on_after(0):
                await recorder.wait_for(fetch, "Running")
            assert not recorder._tape.sightings
            await engine.run(fetch)

    def test_blocking(self) -> None:
        """Sync code blocks until a state is entered in another thread."""
        release = threading.Event()

        @task
        def wait() -> None:
            release.wait(5)

        with Engine() as engine, record(engine) as recorder:
            handle = engine.start(wait)
            assert recorder.wait_for_blocking(handle, "Running").sequence == 2
            threading.Thread(target=release.set).start()
            assert recorder.wait_for_blocking(wait, "Completed").sequence == 3
            with pytest.raises(AssertionError, match="did not enter 'Failed', only: P"):
                recorder.wait_for_blocking(wait, "Failed", timeout=0)
            assert not recorder._tape.sightings
