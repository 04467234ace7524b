"""Transactions: blocks and tasks that stand together or are undone together."""

import asyncio
import gc
import inspect
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import structlog.testing
from support import Way, in_every_way

from engine import Engine, Hook, RunHandle, State, flow, runtime, task, transaction
from engine.cache_policies import INPUTS
from engine.dispatch.caller import CallerDispatcher
from engine.exceptions import EngineLoopError, HookDefinitionError
from engine.results import MemoryResultStore, use_result_store
from engine.testing import run_in_virtual_time
from engine.transactions import (
    CommitMode,
    Transaction,
    TransactionError,
    TransactionState,
    UnknownValueError,
    get_transaction,
)

Step = Callable[[], Any]


class Effects(list[str]):
    """What tasks and their transaction hooks have done, in order."""

    def task(
        self, way: Way, name: str, *, error: BaseException | None = None, **options: Any
    ) -> Any:
        """Make a task with a hook of each kind, all of which write down their calls."""

        def body() -> str:
            self.append(f"do {name}")
            if error is not None:
                raise error
            return name

        made = way.task(body, name=name, **options)
        made.on_commit(partial(self._note, "keep", name))
        made.on_rollback(partial(self._note, "undo", name))
        return made

    def _note(self, what: str, name: str, transaction: Transaction) -> None:
        assert isinstance(transaction, Transaction)
        self.append(f"{what} {name}")


def block(way: Way, *steps: Step, **options: Any) -> Step:
    """Make a function that takes *steps* in a transaction() block."""
    if not way.is_async:

        def sync_block() -> None:
            with transaction(**options):
                for step in steps:
                    step()

        return sync_block

    async def async_block() -> None:
        async with transaction(**options):
            for step in steps:
                result = step()
                if inspect.isawaitable(result):
                    await result

    return async_block


def caught(way: Way, step: Step) -> Step:
    """Make a function that takes a step and catches its ValueError."""
    if not way.is_async:

        def sync_caught() -> None:
            with pytest.raises(ValueError, match="bad"):
                step()

        return sync_caught

    async def async_caught() -> None:
        with pytest.raises(ValueError, match="bad"):
            await step()

    return async_caught


def as_function(way: Way, step: Step) -> Step:
    """Make a plain function that takes a step."""
    if not way.is_async:
        return lambda: step()

    async def call() -> Any:
        return await step()

    return call


def as_flow(way: Way, step: Step) -> Any:
    """Make a flow of a step, which is sync or async already."""
    return flow(name="around")(step)


def started(way: Way, fn: Any, **options: Any) -> tuple[Engine, RunHandle[Any]]:
    """Start a flow or task in an engine of its own; return both when all is over."""
    engine = Engine(**options)
    handles: list[RunHandle[Any]] = []
    if not way.is_async:
        with engine:
            handles.append(engine.start(fn))
            handles[0].wait()
        return engine, handles[0]

    async def main() -> None:
        async with engine:
            handles.append(engine.start(fn))
            await handles[0].join()

    way.call(main)
    return engine, handles[0]


@in_every_way
class TestBlocks:
    def test_a_block_that_ends_well_is_committed_in_order(self, way: Way) -> None:
        """On_commit hooks run at the block's end, in the order of the tasks."""
        effects = Effects()
        steps = [effects.task(way, name) for name in "abc"]
        way.call(as_flow(way, block(way, *steps)))
        assert effects == ["do a", "do b", "do c", "keep a", "keep b", "keep c"]

    def test_a_block_that_raises_is_rolled_back_in_reverse(self, way: Way) -> None:
        """Last task first, and what failed itself has nothing to undo."""
        effects, error = Effects(), ValueError("bad")
        steps = [
            effects.task(way, "a"),
            effects.task(way, "b"),
            effects.task(way, "c", error=error),
        ]
        with pytest.raises(ValueError, match="bad") as raised:
            way.call(as_flow(way, block(way, *steps)))
        assert raised.value is error
        assert effects == ["do a", "do b", "do c", "undo b", "undo a"]

    def test_the_hooks_of_one_task_run_in_reverse_too(self, way: Way) -> None:
        """The hook that was registered last undoes first; commits go forwards."""
        notes: list[str] = []
        made = way.task(
            lambda: None,
            on_rollback=[lambda _: notes.append("first")],
            on_commit=[lambda _: notes.append("one"), lambda _: notes.append("two")],
        )
        made.on_rollback(lambda _: notes.append("second"))
        failing = way.task(partial(fail, "bad"))
        way.call(caught(way, block(way, made, failing)))
        assert notes == ["second", "first"]
        notes.clear()
        way.call(made)
        assert notes == ["one", "two"]

    def test_it_works_outside_of_flows_and_engines(self, way: Way) -> None:
        """A block around tasks and flows has an engine for its length."""
        effects = Effects()
        inner = as_flow(way, block(way, effects.task(way, "b")))
        way.call(block(way, effects.task(way, "a"), inner))
        assert effects == ["do a", "do b", "keep a", "keep b"]

    def test_flows_inside_of_an_outer_block_take_part(self, way: Way) -> None:
        """Their tasks' effects wait for the block that is around everything."""
        effects = Effects()
        step = effects.task(way, "a")
        inner = flow(as_function(way, step))
        failing = way.task(partial(fail, "bad"))
        way.call(caught(way, block(way, inner, failing)))
        assert effects == ["do a", "undo a"]

    def test_it_covers_the_tasks_of_flows_called_inside(self, way: Way) -> None:
        """A failure after a subflow undoes the subflow's tasks."""
        effects = Effects()
        inner = as_flow(way, block(way, effects.task(way, "a")))
        failing = way.task(partial(fail, "bad"))
        way.call(caught(way, as_flow(way, block(way, inner, failing))))
        assert effects == ["do a", "undo a"]

    def test_the_flows_own_hooks_come_after(self, way: Way) -> None:
        """On_failure hooks find everything rolled back."""
        effects = Effects()
        steps = effects.task(way, "a"), way.task(partial(fail, "bad"))
        made = as_flow(way, block(way, *steps))
        made.on_failure(lambda *_: effects.append("failed"))
        way.call(caught(way, made))
        assert effects == ["do a", "undo a", "failed"]

    def test_an_inner_block_waits_for_the_outer_one(self, way: Way) -> None:
        """What it staged is committed, or undone, with what is around it."""
        effects = Effects()
        inner = block(way, effects.task(way, "b"))
        last = effects.task(way, "c")
        way.call(as_flow(way, block(way, effects.task(way, "a"), inner, last)))
        assert effects[3:] == ["keep a", "keep b", "keep c"]
        effects.clear()
        failing = way.task(partial(fail, "bad"))
        way.call(caught(way, block(way, effects.task(way, "a"), inner, failing)))
        assert effects == ["do a", "do b", "undo b", "undo a"]

    def test_a_caught_failure_undoes_the_inner_block_only(self, way: Way) -> None:
        """Who catches an exception goes on: the outer block commits."""
        effects = Effects()
        failing = way.task(partial(fail, "bad"))
        inner = caught(way, block(way, effects.task(way, "b"), failing))
        way.call(as_flow(way, block(way, effects.task(way, "a"), inner)))
        assert effects == ["do a", "do b", "undo b", "keep a"]

    def test_a_failed_task_that_is_caught_undoes_nothing(self, way: Way) -> None:
        """The block, and what other tasks did in it, stands."""
        effects = Effects()
        failing = effects.task(way, "b", error=ValueError("bad"))
        way.call(block(way, effects.task(way, "a"), caught(way, failing)))
        assert effects == ["do a", "do b", "keep a"]

    def test_an_eager_inner_block_stands_whatever_follows(self, way: Way) -> None:
        """It commits at its own end, and the outer rollback leaves it alone."""
        effects = Effects()
        inner = block(way, effects.task(way, "b"), commit_mode="eager")
        steps = effects.task(way, "a"), inner, way.task(partial(fail, "bad"))
        way.call(caught(way, block(way, *steps)))
        assert effects == ["do a", "do b", "keep b", "undo a"]

    def test_an_eager_block_commits_each_task_at_once(self, way: Way) -> None:
        """Its tasks inherit the mode."""
        effects = Effects()
        steps = [effects.task(way, name) for name in "ab"]
        way.call(block(way, *steps, commit_mode=CommitMode.EAGER))
        assert effects == ["do a", "keep a", "do b", "keep b"]

    def test_a_block_that_is_off_is_rolled_back(self, way: Way) -> None:
        """Nothing of it stands that was not committed by hand; nested ones too."""
        effects = Effects()
        way.call(block(way, effects.task(way, "a"), commit_mode="off"))
        assert effects == ["do a", "undo a"]
        effects.clear()
        inner = block(way, effects.task(way, "b"), commit_mode="off")
        way.call(block(way, effects.task(way, "a"), inner))
        assert effects == ["do a", "do b", "undo b", "keep a"]

    def test_commit_by_hand_is_at_once_and_for_good(self, way: Way) -> None:
        """What came before stands, even if the block fails; what follows is its own."""
        effects = Effects()

        def commit() -> Any:
            found = get_transaction()
            assert found is not None
            return found.commit()

        steps = effects.task(way, "a"), commit, commit, effects.task(way, "b")
        way.call(block(way, *steps, commit_mode="off"))
        assert effects == ["do a", "keep a", "do b", "keep b"]
        effects.clear()
        steps = effects.task(way, "a"), commit, way.task(partial(fail, "bad"))
        way.call(caught(way, as_flow(way, block(way, *steps))))
        assert effects == ["do a", "keep a"]

    def test_rollback_by_hand_ends_the_transaction(self, way: Way) -> None:
        """The block goes on, but nothing can begin in what was rolled back."""
        effects = Effects()

        def roll_back() -> Any:
            found = get_transaction()
            assert found is not None
            return found.rollback()

        way.call(block(way, effects.task(way, "a"), roll_back))
        assert effects == ["do a", "undo a"]
        with pytest.raises(TransactionError, match="rolled back"):
            way.call(block(way, roll_back, effects.task(way, "b")))
        with pytest.raises(TransactionError, match="rolled back"):
            way.call(block(way, roll_back, block(way)))

    def test_any_exception_rolls_back(self, way: Way) -> None:
        """A task that exits crashes the flow, and what was done before is undone."""
        effects = Effects()
        dying = way.task(partial(fail, "now", SystemExit))
        with pytest.raises(SystemExit):
            way.call(as_flow(way, block(way, effects.task(way, "a"), dying)))
        assert effects == ["do a", "undo a"]

    def test_values_are_copies_and_are_found_from_inside(self, way: Way) -> None:
        """A hook gets what the block, or the task around it, has set."""
        given, found = ["x"], []

        def set_value() -> None:
            here = get_transaction()
            assert here is not None
            here.set("names", given)
            here.set("none", None)
            given.append("too late")

        def body() -> None:
            here = get_transaction()
            assert here is not None
            here.set("mine", [*here.get("names"), "y"])

        made = way.task(body)

        @made.on_commit
        def look(txn: Transaction) -> None:
            txn.get("names").append("a copy")
            found.extend([txn.get("names"), txn.get("mine"), txn.get("none")])

        way.call(block(way, set_value, made))
        assert found == [["x"], ["x", "y"], None]

    def test_a_value_that_nobody_set_is_an_error(self, way: Way) -> None:
        """Unless there is a default."""

        def look() -> None:
            here = get_transaction()
            assert here is not None
            assert here.get("missing", 1) == 1
            with pytest.raises(UnknownValueError, match="'missing'"):
                here.get("missing")

        way.call(block(way, look))

    def test_the_transaction_is_known_inside_only(self, way: Way) -> None:
        """A task with transaction hooks has its own, another is in the block's."""
        plain = way.task(get_transaction)
        own = way.task(get_transaction, on_commit=[lambda _: None])
        found: list[Any] = []

        def note(step: Step) -> Step:
            if not way.is_async:
                return lambda: found.append(step())

            async def note_async() -> None:
                found.append(await step())

            return note_async

        way.call(block(way, lambda: found.append(get_transaction()), note(plain)))
        outer, inside = found
        assert isinstance(outer, Transaction)
        assert inside is outer
        assert get_transaction() is None
        found.clear()
        way.call(note(own))
        assert found[0].parent is None
        assert found[0].name.startswith("get_transaction")


def fail(text: str, kind: type[BaseException] = ValueError) -> None:
    """Raise an exception."""
    raise kind(text)


@in_every_way
class TestStates:
    def test_a_task_alone_commits_before_it_completes(self, way: Way) -> None:
        """On_commit hooks run before the terminal state and its hooks."""
        effects = Effects()
        made = effects.task(way, "a")
        made.on_completion(lambda *_: effects.append("completed"))
        assert way.call(made) == "a"
        assert effects == ["do a", "keep a", "completed"]

    def test_what_cannot_be_committed_is_undone_and_says_so(self, way: Way) -> None:
        """It completed, its caller gets the value, and the state's name tells."""
        effects = Effects()
        made = effects.task(way, "a")
        made.on_commit(partial(fail_in_hook, "no"))
        made.on_commit(lambda _: effects.append("never"))
        made.on_completion(lambda *_: effects.append("completed"))
        state = way.state(made)
        assert effects == ["do a", "keep a", "undo a", "completed"]
        assert (state.name, state.is_completed(), state.data) == (
            "RolledBack",
            True,
            "a",
        )
        assert "on_commit hook 'fail_in_hook' failed" in state.message
        assert way.call(made) == "a"

    def test_a_commit_that_fails_undoes_its_own_task_only(self, way: Way) -> None:
        """The block's other tasks, before and after, stand."""
        effects = Effects()
        broken = effects.task(way, "b")
        broken.on_commit(partial(fail_in_hook, "no"))
        steps = effects.task(way, "a"), broken, effects.task(way, "c")
        way.call(as_flow(way, block(way, *steps)))
        assert effects[3:] == ["keep a", "keep b", "undo b", "keep c"]

    def test_a_rollback_hook_that_fails_stops_no_other(self, way: Way) -> None:
        """Each of them is owed, and the original exception goes on."""
        effects = Effects()
        broken = effects.task(way, "b")
        broken.on_rollback(partial(fail_in_hook, "no"))
        steps = effects.task(way, "a"), broken, way.task(partial(fail, "bad"))
        with pytest.raises(ValueError, match="bad"):
            way.call(as_flow(way, block(way, *steps)))
        assert effects == ["do a", "do b", "undo b", "undo a"]

    def test_a_completed_run_stays_completed(self, way: Way) -> None:
        """A later rollback shows in its hooks' outcomes, which add up like all."""
        effects = Effects()
        made = effects.task(way, "a")
        made.on_completion(lambda *_: effects.append("completed"))
        made.on_rollback(partial(fail_in_hook, "no"))
        handles: list[RunHandle[Any]] = []

        def submit() -> Any:
            handles.append(made.submit())
            return handles[0].join() if way.is_async else handles[0].wait()

        around = as_flow(way, block(way, submit, way.task(partial(fail, "bad"))))
        engine, handle = started(way, around)
        assert handle.state.is_failed()
        inner = handles[0]
        assert (inner.state.name, inner.state.data) == ("Completed", "a")
        assert effects == ["do a", "completed", "undo a"]
        assert [(o.kind, o.state, o.status) for o in inner.hook_outcomes] == [
            ("on_completion", "Completed", "delivered"),
            ("on_rollback", "RolledBack", "failed"),
            ("on_rollback", "RolledBack", "delivered"),
        ]
        assert all(o.run_id == inner.id for o in inner.hook_outcomes)
        counts = engine.statistics().hooks
        assert (counts.due, counts.delivered, counts.failed) == (3, 2, 1)
        assert counts.waiting == 0

    def test_the_transaction_says_where_it_is(self, way: Way) -> None:
        """Hooks see it decided upon; afterwards it is committed or rolled back."""
        seen: list[Any] = []
        made = way.task(lambda: seen.append(get_transaction()))
        made.on_commit(lambda txn: seen.append((txn.state, txn.is_staged())))
        made.on_rollback(lambda txn: seen.append((txn.state, txn.is_rolled_back())))
        way.call(block(way, made))
        first = seen.pop(0)
        assert seen == [(TransactionState.STAGED, True)]
        assert first.is_committed()
        assert not first.is_active()
        seen.clear()
        way.call(caught(way, block(way, made, way.task(partial(fail, "bad")))))
        second = seen.pop(0)
        assert seen == [(TransactionState.ROLLED_BACK, True)]
        assert second.is_rolled_back()
        assert repr(second).endswith(": rolled back>")

    def test_hooks_run_in_the_context_of_their_run(self, way: Way) -> None:
        """Long after it has ended they see its runtime and its variables."""
        variable: ContextVar[str] = ContextVar("variable", default="outside")
        seen: list[Any] = []

        def body() -> str | None:
            variable.set("inside")
            return runtime.task_run.id

        made = way.task(body)

        @made.on_rollback
        def look(txn: Transaction) -> None:
            seen.append((variable.get(), runtime.task_run.id, get_transaction() is txn))

        def get_id() -> Any:
            if not way.is_async:
                return seen.append(made())

            async def get_id_async() -> None:
                seen.append(await made())

            return get_id_async()

        around = block(way, get_id, way.task(partial(fail, "bad")))
        way.call(caught(way, as_flow(way, around)))
        run_id, found = seen
        assert found == ("inside", run_id, True)

    def test_hooks_may_take_what_hooks_can_take(self, way: Way) -> None:
        """Async ones are awaited, failed ones repeated where their Hook says so."""
        calls: list[str] = []

        async def awaited(txn: Transaction) -> None:
            await anyio.lowlevel.checkpoint()
            calls.append("awaited")

        def flaky(txn: Transaction) -> None:
            calls.append("flaky")
            if calls.count("flaky") < 3:
                raise ValueError

        made = way.task(lambda: 1, on_commit=[awaited, Hook(flaky, retries=2)])
        _, handle = started(way, made)
        assert calls == ["awaited", "flaky", "flaky", "flaky"]
        assert handle.state.name == "Completed"
        assert [o.attempts for o in handle.hook_outcomes] == [1, 3]

    def test_a_journal_changes_nothing(self, way: Way, tmp_path: Path) -> None:
        """The hooks wait for it, as all others do, and are called."""
        effects = Effects()
        alone, inside = effects.task(way, "a"), effects.task(way, "b")
        around = block(way, inside, way.task(partial(fail, "bad")))
        journal = f"sqlite:///{tmp_path / 'journal'}"
        engine, handle = started(way, as_flow(way, around), journal=journal)
        assert handle.state.is_failed()
        assert effects == ["do b", "undo b"]
        counts = engine.statistics().hooks
        assert (counts.due, counts.delivered) == (1, 1)
        effects.clear()
        _, handle = started(way, alone, journal=f"{journal}-2")
        assert effects == ["do a", "keep a"]
        assert [o.kind for o in handle.hook_outcomes] == ["on_commit"]

    def test_what_a_hook_calls_is_not_in_the_transaction(self, way: Way) -> None:
        """It commits for itself, also where the hook undoes what is around."""
        effects = Effects()
        apart = effects.task(Way("plain"), "apart")
        made = effects.task(way, "a", on_completion=[lambda *_: apart()])
        made.on_rollback(lambda _: apart())
        way.call(caught(way, block(way, made, way.task(partial(fail, "bad")))))
        once = ["do apart", "keep apart"]
        assert effects == ["do a", *once, *once, "undo a"]


def fail_in_hook(text: str, transaction: Transaction) -> None:
    """Raise from a hook."""
    raise LookupError(text)


@in_every_way
class TestRetries:
    def test_a_failed_attempt_leaves_the_block_alone(self, way: Way) -> None:
        """Only what the attempt itself had staged is undone before the next one."""
        effects, attempts = Effects(), []
        step = effects.task(way, "step")

        def fail_once() -> None:
            attempts.append(1)
            if len(attempts) == 1:
                raise ValueError("bad")

        if way.is_async:

            async def body() -> None:
                await step()
                fail_once()
        else:

            def body() -> None:  # type: ignore[misc]
                step()
                fail_once()

        outer = task(name="outer", retries=1, on_rollback=[lambda _: None])(body)
        failing = way.task(partial(fail, "bad"))
        before = effects.task(way, "before")
        way.call(caught(way, as_flow(way, block(way, before, outer, failing))))
        assert effects == [
            "do before", "do step", "undo step", "do step", "undo step", "undo before",
        ]  # fmt: skip
        assert len(attempts) == 2

    def test_a_retried_run_commits_once(self, way: Way) -> None:
        """The attempt that returned is the one that counts."""
        effects, errors = Effects(), [ValueError("bad")]

        def body() -> None:
            effects.append("do")
            if errors:
                raise errors.pop()

        made = way.task(body, retries=1, on_commit=[lambda _: effects.append("keep")])
        way.call(made)
        assert effects == ["do", "do", "keep"]


class TestOptions:
    def test_hooks_take_one_argument(self) -> None:
        """Anything else is refused at the decoration, with the right form."""
        with pytest.raises(HookDefinitionError, match=r"def hook\(transaction\)"):
            task(on_rollback=[lambda task, run, state: None])(fail)
        with pytest.raises(HookDefinitionError, match="on_commit"):
            task(fail).on_commit(lambda: None)
        with pytest.raises(HookDefinitionError, match="not a callable"):
            task(on_commit=["hook"])(fail)  # type: ignore[list-item]

    def test_flows_have_no_transaction_hooks(self) -> None:
        """The error names what there is."""
        with pytest.raises(TypeError, match="on_rollback"):
            flow(on_rollback=[])(fail)  # type: ignore[call-overload]

    def test_only_what_needs_one_is_a_transaction(self) -> None:
        """Other tasks do not pay for it; decorators and copies are seen."""
        plain = task(fail)
        assert not plain.is_transactional
        copy = plain.with_options(on_commit=[lambda _: None])
        assert copy.is_transactional
        assert not plain.is_transactional
        assert not copy.with_options(on_commit=[]).is_transactional
        plain.on_rollback(lambda _: None)
        assert plain.is_transactional
        assert plain.with_options(name="other").is_transactional

    def test_a_mode_or_key_that_is_none_is_refused(self) -> None:
        """At the call, before anything begins."""
        with pytest.raises(ValueError, match="later"):
            transaction(commit_mode="later")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="string"):
            transaction(key=1)  # type: ignore[arg-type]

    def test_a_block_is_entered_once(self) -> None:
        """Its second use is an error, and no engine is left open."""
        opened = transaction()
        with opened:
            pass
        with pytest.raises(TransactionError, match="once"), opened:
            pass

        async def again() -> None:
            async with opened:
                pass

        with pytest.raises(TransactionError, match="once"):
            anyio.run(again)
        engines = [one for one in gc.get_objects() if type(one) is Engine]
        assert all(engine.is_closed for engine in engines)

    def test_by_hand_is_for_open_blocks(self) -> None:
        """Neither a task's own transaction nor an ended one can be decided on."""
        own = task(on_commit=[lambda _: None])(get_transaction)
        with transaction() as txn:
            found = own()
        assert found is not None
        for ended in txn, found:
            with pytest.raises(TransactionError, match="while they go on"):
                ended.commit()
            with pytest.raises(TransactionError, match="while they go on"):
                ended.rollback()


class TestKeys:
    @in_every_way
    def test_a_remembered_key_begins_committed(self, way: Way) -> None:
        """So that a block can leave its work out the second time."""
        seen: list[bool] = []

        def look() -> None:
            found = get_transaction()
            assert found is not None
            seen.append(found.is_committed())

        remembering = {"key": "import-1", "store": MemoryResultStore()}
        way.call(block(way, look, **remembering))
        way.call(as_flow(way, block(way, look, **remembering)))
        way.call(block(way, look, **remembering, overwrite=True))
        assert seen == [False, True, False]

    @in_every_way
    def test_a_key_that_was_rolled_back_is_not_remembered(self, way: Way) -> None:
        """Nor one that only an inner block had, when the outer one fails."""
        with use_result_store(MemoryResultStore()) as _:
            inner = block(way, key="inner")
            failing = way.task(partial(fail, "bad"))
            way.call(caught(way, block(way, inner, failing, key="outer")))
            seen: list[Any] = []

            def look() -> None:
                seen.append(get_transaction().is_committed())  # type: ignore[union-attr]

            way.call(block(way, look, block(way, look, key="inner"), key="outer"))
            assert seen == [False, False]

    def test_an_inner_key_is_seen_before_the_outer_commit(self) -> None:
        """What was staged in the same transaction counts."""
        store = MemoryResultStore()
        with transaction():
            with transaction(key="one", store=store):
                pass
            with transaction(key="one", store=store) as again:
                assert again.is_committed()
            assert len(store) == 0
        assert len(store) == 1


class TestCancellation:
    @pytest.mark.anyio
    @pytest.mark.parametrize("kind", ["user", "host"])
    async def test_a_cancelled_block_is_rolled_back(self, kind: str) -> None:
        """Its async hooks are awaited, although everything around is cancelled."""
        effects, inside = Effects(), anyio.Event()
        made = effects.task(Way("asyncio"), "a")

        @made.on_rollback
        async def slow(txn: Transaction) -> None:
            await anyio.lowlevel.checkpoint()
            effects.append("slowly")

        @flow
        async def around() -> None:
            async with transaction():
                await made()
                inside.set()
                await anyio.sleep_forever()

        async with Engine() as engine:
            if kind == "user":
                handle = engine.start(around)
                await inside.wait()
                handle.cancel()
                await handle.join()
                assert handle.state.name == "Cancelled"
            else:
                async with anyio.create_task_group() as group:
                    group.start_soon(engine.run, around)
                    await inside.wait()
                    group.cancel_scope.cancel()
        assert effects == ["do a", "slowly", "undo a"]

    @pytest.mark.anyio
    async def test_a_run_that_swallows_its_cancellation_commits_nothing(self) -> None:
        """It ends Cancelled, so what it did is undone."""
        effects, inside = Effects(), anyio.Event()
        made = effects.task(Way("asyncio"), "a")

        @flow
        async def stubborn() -> None:
            async with transaction():
                await made()
                with anyio.CancelScope(shield=True), anyio.move_on_after(0):
                    await anyio.lowlevel.checkpoint()
                inside.set()
                try:
                    await anyio.sleep_forever()
                except anyio.get_cancelled_exc_class():
                    return  # bad manners are the point

        async with Engine() as engine:
            handle = engine.start(stubborn)
            await inside.wait()
            handle.cancel()
            state = await handle.join()
        assert state.name == "Cancelled"
        assert effects == ["do a", "undo a"]

    @pytest.mark.anyio
    async def test_a_task_that_swallows_its_cancellation_is_undone(self) -> None:
        """Its body returned, so there is something to undo; the run is Cancelled."""
        inside, calls = anyio.Event(), []

        @task(on_rollback=[lambda _: calls.append("undo")])
        async def stubborn() -> int:
            inside.set()
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                return 1  # bad manners are the point

        async with Engine() as engine:
            handle = engine.start(stubborn)
            await inside.wait()
            handle.cancel()
            state = await handle.join()
        assert state.name == "Cancelled"
        assert calls == ["undo"]

    def test_a_body_that_was_left_behind_commits_nothing(self) -> None:
        """A sync flow past its deadline goes on in its thread, but is undone there."""
        effects, inside, go_on = Effects(), threading.Event(), threading.Event()
        undone = threading.Event()
        last = [lambda _: undone.set()]
        made = effects.task(Way("plain"), "a", on_rollback=last)

        @flow
        def blocked() -> None:
            with transaction():
                made()
                inside.set()
                go_on.wait()

        with Engine() as engine:
            handle = engine.start(blocked)
            inside.wait()
            handle.cancel()
            assert handle.wait().name == "Cancelled"
            go_on.set()
            assert undone.wait(5)
        assert effects == ["do a", "undo a"]

    @pytest.mark.anyio
    async def test_a_commit_that_has_begun_is_finished(self) -> None:
        """A cancellation meanwhile is raised afterwards; nothing is left half kept."""
        calls, inside, go_on = [], anyio.Event(), anyio.Event()

        async def slow(txn: Transaction) -> None:
            inside.set()
            await go_on.wait()
            calls.append("slowly")

        first = task(name="first", on_commit=[slow])(lambda: 1)
        second = task(name="second", on_commit=[lambda _: calls.append("after")])
        after = second(lambda: 2)

        @flow
        async def around() -> None:
            async with transaction():
                first()
                after()
            await anyio.lowlevel.checkpoint()
            calls.append("never")

        async with Engine() as engine:
            handle = engine.start(around)
            await inside.wait()
            handle.cancel()
            await anyio.wait_all_tasks_blocked()
            assert handle.state.name == "Cancelling"
            go_on.set()
            await handle.join()
        assert calls == ["slowly", "after"]
        assert handle.state.name == "Cancelled"

    @pytest.mark.anyio
    @pytest.mark.parametrize("alone", [True, False])
    async def test_a_cancellation_waits_for_a_commit(self, *, alone: bool) -> None:
        """A task's own, or one by hand: the hooks are called, then the run stops."""
        calls, inside, go_on = [], anyio.Event(), anyio.Event()

        async def slow(txn: Transaction) -> None:
            inside.set()
            await go_on.wait()
            calls.append("slowly")

        @task(on_commit=[slow, lambda _: calls.append("after")])
        async def step() -> None: ...

        @flow
        async def around() -> None:
            async with transaction(commit_mode="off") as txn:
                await step()
                await txn.commit()
                await anyio.lowlevel.checkpoint()
                calls.append("never")

        async with Engine() as engine:
            handle: RunHandle[None] = engine.start(step if alone else around)
            await inside.wait()
            handle.cancel()
            await anyio.wait_all_tasks_blocked()
            go_on.set()
            await handle.join()
        assert calls == ["slowly", "after"]
        assert handle.state.name == "Cancelled"

    def test_a_hosts_cancellation_goes_on_after_a_commit(self) -> None:
        """One that asyncio delivers once, while the hooks of a task are called."""

        async def main() -> list[str]:
            calls, inside = [], asyncio.Event()

            async def slow(txn: Transaction) -> None:
                inside.set()
                await asyncio.sleep(0)
                calls.append("slowly")

            @task(on_commit=[slow])
            async def step() -> None: ...

            async def host() -> None:
                await step()
                calls.append("never")

            async with Engine():
                hosting = asyncio.create_task(host())
                await inside.wait()
                hosting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await hosting
            return calls

        assert anyio.run(main, backend="asyncio") == ["slowly"]

    @pytest.mark.parametrize("times", [1, 2])
    def test_an_interrupt_waits_for_the_hooks(
        self, monkeypatch: pytest.MonkeyPatch, times: int
    ) -> None:
        """Ctrl-C while one is waited for; asked for twice no other is called."""
        effects, interrupts = Effects(), [KeyboardInterrupt()] * times
        steps = [effects.task(Way("plain"), name) for name in "ab"]
        wait_for_lane = CallerDispatcher.wait_for_lane

        async def wait(self: Any, lane: Any) -> None:
            if interrupts:
                raise interrupts.pop()
            await wait_for_lane(self, lane)

        def body() -> None:
            with transaction():
                for step in steps:
                    step()
                monkeypatch.setattr(CallerDispatcher, "wait_for_lane", wait)
                raise ValueError("bad")

        with pytest.raises(KeyboardInterrupt):
            body()
        undone = ["undo b", "undo a"] if times == 1 else ["undo b"]
        assert effects == ["do a", "do b", *undone]

    def test_hooks_end_by_their_timeout(self) -> None:
        """One that hangs has timed out, and the rest is undone all the same."""
        calls: list[str] = []

        async def hang(txn: Transaction) -> None:
            await anyio.sleep_forever()

        async def undo(txn: Transaction) -> None:
            calls.append("undo")

        @task(on_rollback=[undo, Hook(hang, timeout=30)])
        async def step() -> None: ...

        @flow
        async def around() -> None:
            async with transaction():
                handle = step.submit()
                await handle
                outcomes.append(handle)
                raise ValueError("bad")

        outcomes: list[RunHandle[None]] = []
        with pytest.raises(ValueError, match="bad"):
            run_in_virtual_time(around, backend="asyncio")
        assert calls == ["undo"]
        assert [o.status for o in outcomes[0].hook_outcomes] == [
            "timed_out",
            "delivered",
        ]

    def test_the_deadline_is_the_bodys(self) -> None:
        """Hooks of a commit that take longer than the task may are no timeout."""

        async def slow(txn: Transaction) -> None:
            await anyio.sleep(5)

        @task(timeout_seconds=1, on_commit=[slow])
        async def step() -> str:
            return "done"

        for backend in ("asyncio", "trio"):
            call = partial(step, return_state=True)
            state = run_in_virtual_time(call, backend=backend)
            assert state.name == "Completed"

    @pytest.mark.anyio
    async def test_a_closed_coroutine_is_undone_without_its_loop(self) -> None:
        """Whoever closes it does not wait, so its hooks run at once."""
        effects = Effects()
        made = effects.task(Way("plain"), "a")

        async def body() -> None:
            async with transaction():
                made()
                await Forever()

        async with Engine():
            coroutine = body()
            coroutine.send(None)
            coroutine.close()
            assert effects == ["do a", "undo a"]

    @pytest.mark.anyio
    async def test_a_closed_task_undoes_what_it_has_called(self) -> None:
        """Its own hooks have nothing to undo, those of its steps do."""
        effects = Effects()
        made = effects.task(Way("plain"), "a")

        @task(on_rollback=[lambda _: effects.append("never")])
        async def outer() -> None:
            made()
            await Forever()

        async with Engine():
            coroutine = outer()
            coroutine.send(None)
            coroutine.close()
            assert effects == ["do a", "undo a"]


class Forever:
    """Something to await that no loop knows of."""

    def __await__(self) -> Any:
        yield self


class TestConcurrency:
    @pytest.mark.anyio
    async def test_submitted_tasks_take_part(self) -> None:
        """They are undone in the reverse order of their ends, not of their starts."""
        effects, first_may_end = Effects(), anyio.Event()

        @task(on_rollback=[lambda _: effects.append("undo slow")])
        async def slow() -> None:
            await first_may_end.wait()

        @task(on_rollback=[lambda _: effects.append("undo quick")])
        async def quick() -> None: ...

        @flow
        async def around() -> None:
            async with transaction():
                handles = [slow.submit(), quick.submit()]
                await handles[1]
                first_may_end.set()
                await handles[0]
                raise ValueError("bad")

        with pytest.raises(ValueError, match="bad"):
            await around()
        assert effects == ["undo slow", "undo quick"]

    @pytest.mark.anyio
    async def test_a_task_that_ends_after_a_commit_stands_alone(self) -> None:
        """Nobody waited for it, so it commits at its own end."""
        effects, may_end = Effects(), anyio.Event()

        @task(on_commit=[lambda _: effects.append("keep")])
        async def slow() -> str:
            await may_end.wait()
            return "slow"

        @flow
        async def around() -> Any:
            async with transaction():
                handle = slow.submit()
                await anyio.wait_all_tasks_blocked()
            assert effects == []
            may_end.set()
            await handle
            return handle.state

        state = await around(return_state=True)
        assert effects == ["keep"]
        assert state.name == "Completed"

    @pytest.mark.anyio
    async def test_a_task_that_ends_during_a_commit_stands_alone(self) -> None:
        """The block does not look back for it, so it commits at its own end."""
        effects, committing, go_on = Effects(), anyio.Event(), anyio.Event()
        handles: list[RunHandle[Any]] = []

        async def slow(txn: Transaction) -> None:
            committing.set()
            await go_on.wait()
            effects.append("keep first")

        first = task(on_commit=[slow])(lambda: None)

        @task(on_commit=[lambda _: effects.append("keep second")])
        async def second() -> None:
            await committing.wait()

        @flow
        async def around() -> None:
            async with transaction():
                first()
                handles.append(second.submit())
                await anyio.wait_all_tasks_blocked()

        async with Engine() as engine:
            handle = engine.start(around)
            await committing.wait()
            await handles[0]
            go_on.set()
            await handle
        assert effects == ["keep second", "keep first"]

    @pytest.mark.anyio
    async def test_a_task_that_ends_after_a_rollback_is_undone(self) -> None:
        """It is undone at its own end, at once, and its state says so."""
        effects, may_end = Effects(), anyio.Event()
        handles: list[RunHandle[Any]] = []

        @task(on_rollback=[lambda _: effects.append("undo")])
        async def slow() -> str:
            await may_end.wait()
            return "slow"

        @task(on_rollback=[lambda _: effects.append("undo")])
        async def late() -> None:
            effects.append("never")

        @flow
        async def around() -> None:
            try:
                async with transaction():
                    handles.append(slow.submit())
                    await anyio.wait_all_tasks_blocked()
                    handles.append(late.submit(wait_for=[handles[0]]))
                    raise ValueError("bad")
            except ValueError:
                assert effects == []
            may_end.set()
            for handle in handles:
                await handle.join()

        await around()
        assert effects == ["undo"]
        assert (handles[0].state.name, handles[0].state.data) == ("RolledBack", "slow")
        assert handles[1].state.name == "Failed"
        assert isinstance(handles[1].state.data, TransactionError)

    @pytest.mark.anyio
    async def test_a_late_task_joins_the_next_block_that_is_open(self) -> None:
        """The inner block has ended, the outer one has not: that one decides."""
        effects, may_end = Effects(), anyio.Event()

        @task(on_rollback=[lambda _: effects.append("undo")])
        async def slow() -> None:
            await may_end.wait()

        @flow
        async def around() -> None:
            async with transaction():
                async with transaction():
                    handle = slow.submit()
                    await anyio.wait_all_tasks_blocked()
                may_end.set()
                await handle
                assert handle.state.name == "Completed"
                raise ValueError("bad")

        with pytest.raises(ValueError, match="bad"):
            await around()
        assert effects == ["undo"]

    @pytest.mark.anyio
    async def test_detached_runs_take_no_part(self) -> None:
        """What engine.start() makes is nobody's part, and commits for itself."""
        effects = Effects()
        made = effects.task(Way("asyncio"), "a")

        @flow
        async def around() -> None:
            async with transaction():
                await engine.start(made)
                raise ValueError("bad")

        async with Engine() as engine:
            with pytest.raises(ValueError, match="bad"):
                await engine.run(around)
        assert effects == ["do a", "keep a"]

    @pytest.mark.anyio
    async def test_users_own_tasks_take_part(self) -> None:
        """What runs side by side in a block is in its transaction."""
        effects = Effects()
        steps = [effects.task(Way("asyncio"), name) for name in "abc"]

        @flow
        async def around() -> None:
            async with transaction():
                async with anyio.create_task_group() as group:
                    for step in steps:
                        group.start_soon(step)
                raise ValueError("bad")

        with pytest.raises(ValueError, match="bad"):
            await around()
        done = [entry[-1] for entry in effects[:3]]
        assert effects[3:] == [f"undo {name}" for name in reversed(done)]

    def test_many_threads_stage_in_one_block(self) -> None:
        """Nothing staged is lost, and everything is undone once."""
        calls: list[int] = []
        lock = threading.Lock()

        @task
        def step(i: int) -> int:
            found = get_transaction()
            assert found is not None
            found.set("i", i)
            return i

        @step.on_rollback
        def undo(txn: Transaction) -> None:
            with lock:
                calls.append(txn.get("i"))

        @flow
        def around() -> None:
            with transaction():
                step.map(range(50)).wait()
                raise ValueError("bad")

        with pytest.raises(ValueError, match="bad"):
            around()
        assert sorted(calls) == list(range(50))


class TestLoops:
    @pytest.mark.anyio
    async def test_with_works_in_async_code(self) -> None:
        """Sync hooks run right there; async ones on another loop, while it is held."""
        effects, here = Effects(), threading.get_ident()
        threads: dict[str, int] = {}
        made = effects.task(Way("asyncio"), "a")
        made.on_commit(lambda _: threads.update(sync=threading.get_ident()))

        @made.on_commit
        async def elsewhere(txn: Transaction) -> None:
            await anyio.lowlevel.checkpoint()
            threads["async"] = threading.get_ident()

        @flow
        async def around() -> None:
            with transaction():
                await made()

        await around()
        assert effects == ["do a", "keep a"]
        assert threads["sync"] == here
        assert threads["async"] != here

    @pytest.mark.anyio
    async def test_async_with_never_holds_the_loop(self) -> None:
        """Sync hooks are in threads, async ones on this very loop."""
        here, threads = threading.get_ident(), {}
        made = task(lambda: 1)
        made.on_commit(lambda _: threads.update(sync=threading.get_ident()))

        @made.on_commit
        async def awaited(txn: Transaction) -> None:
            threads["async"] = threading.get_ident()

        async with Engine(), transaction():
            made()
        assert threads["sync"] != here
        assert threads["async"] == here

    @pytest.mark.anyio
    async def test_with_outside_of_engines_works_in_async_code(self) -> None:
        """Sync tasks take part in it, as they would in sync code."""
        effects = Effects()
        with transaction():
            effects.task(Way("plain"), "a")()
        assert effects == ["do a", "keep a"]

    def test_a_block_on_a_foreign_loop_is_refused(self) -> None:
        """An engine that was entered elsewhere cannot wait there."""

        async def main() -> None:
            with pytest.raises(EngineLoopError, match=r"transaction\(\)"):
                async with transaction():
                    pass

        @flow
        def around() -> None:
            anyio.run(main)

        around()

    @pytest.mark.anyio
    async def test_a_block_in_a_hook_is_its_own(self) -> None:
        """It commits at its end, whatever the run it belongs to is in."""
        effects = Effects()
        made = effects.task(Way("asyncio"), "a")

        async def hook(*_: Any) -> None:
            async with transaction():
                await made()

        inside = task(lambda: None, on_completion=[hook])

        @flow
        async def around() -> None:
            async with transaction():
                inside()
                raise ValueError("bad")

        with pytest.raises(ValueError, match="bad"):
            await around()
        assert effects == ["do a", "keep a"]

    @pytest.mark.anyio
    async def test_what_a_closed_engine_owed_is_undelivered(self) -> None:
        """A block around an engine undoes what it can, and says what it could not."""
        handles: list[RunHandle[Any]] = []
        made = task(on_rollback=[lambda _: None])(lambda: 1)
        inner = Engine()

        async def work() -> None:
            async with transaction():
                async with inner:
                    handles.append(inner.start(made))
                    await handles[0]
                raise ValueError("bad")

        async with Engine() as outer:
            with pytest.raises(ValueError, match="bad"):
                await work()
            assert outer.statistics().hooks.due == 0
        assert [o.status for o in handles[0].hook_outcomes] == ["undelivered"]
        assert inner.statistics().hooks.undelivered == 1


class TestResources:
    @in_every_way
    @pytest.mark.parametrize("ending", ["commit", "roll back", "fail", "cached"])
    def test_ended_transactions_keep_no_runs(self, way: Way, ending: str) -> None:
        """Runs are freed by reference counting alone when nothing holds them."""
        policy = INPUTS if ending == "cached" else None
        hooks = [lambda _: None]
        made = way.task(
            partial(fail, "bad") if ending == "fail" else lambda: None,
            on_commit=hooks,
            on_rollback=hooks,
            cache_policy=policy,
        )
        steps = [made, made]
        if ending == "roll back":
            steps.append(way.task(partial(fail, "bad")))
        around = as_flow(way, block(way, *steps))
        left: list[Any] = []

        def count() -> None:
            ended = filter(is_ended, gc.get_objects())
            left.extend(run for run in ended if run not in held)

        def sync_main() -> None:
            with Engine(history=0):
                for _ in range(3):
                    around(return_state=True)
                count()

        async def async_main() -> None:
            async with Engine(history=0):
                for _ in range(3):
                    await around(return_state=True)
                await anyio.wait_all_tasks_blocked()
                count()

        gc.collect()
        # What other tests have left to somebody is not this one's affair.
        held = list(filter(is_ended, gc.get_objects()))
        gc.disable()
        try:
            way.call(async_main if way.is_async else sync_main)
        finally:
            gc.enable()
        assert left == []

    def test_rollbacks_are_logged(self) -> None:
        """Each run that is undone has a line with its identity."""
        made = task(name="step", on_rollback=[lambda _: None])(lambda: 1)
        states: list[State[int]] = []

        @flow
        def around() -> None:
            with transaction():
                states.append(made(return_state=True))
                raise ValueError("bad")

        with structlog.testing.capture_logs() as lines, suppress(ValueError):
            around()
        (line,) = [one for one in lines if one["event"] == "transaction_rolled_back"]
        assert line["run_id"] == states[0].run_id


def is_ended(value: object) -> bool:
    """Whether something is a run that is over, or a transaction."""
    kind = type(value).__name__
    return kind == "Transaction" or (
        kind == "RunActor" and getattr(value, "settled", False)
    )
