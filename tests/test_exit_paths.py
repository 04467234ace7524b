"""Whatever way a run ends: its states, its hooks, and what its caller sees."""

from itertools import chain
from typing import Any, get_args

import anyio
import pytest
from exit_contract.cases import Case, cases, combinations
from exit_contract.performance import observe
from exit_contract.readme import is_current
from exit_contract.table import NOT_REACHABLE, TABLE, ExitPath

from engine import Engine, flow, task
from engine.actors.messages import Cause
from engine.exceptions import BlockingCallError
from engine.handles import CAUGHT_CRASHES
from engine.hooks import KINDS
from engine.states import TERMINAL

SAME = "the same exception object"


@pytest.mark.parametrize("case", cases(TABLE), ids=str)
def test_exit_path(case: Case) -> None:
    """A run that ends in a row's way shows that row, and breaks no other rule."""
    path, seen = case.path, observe(case)
    assert seen.states == path.states
    assert seen.hooks == path.hooks
    assert seen.sees == path.sees
    assert seen.complaints == ()
    if seen.parent:
        assert seen.parent == (path.parent or parent_of(path))


def parent_of(path: ExitPath) -> tuple[str, str]:
    """Return the states of a flow that passes on what its child gives or raises."""
    if path.sees == "the value":
        return "Running", "Completed"
    end, is_passed_on = path.states[-1], path.sees in ("the termination", SAME)
    return "Running", end if end.startswith("Crashed, ") and is_passed_on else "Failed"


def test_rows_have_keys_of_their_own() -> None:
    """No row hides another one."""
    assert len({path.key for path in TABLE}) == len(TABLE)


def test_table_is_whole() -> None:
    """Every cause, terminal state and kind of hook is in the table, or said not to."""
    states = set(chain.from_iterable(path.states for path in TABLE))
    causes = {state.partition(", cause ")[2] for state in states}
    assert {*get_args(Cause), *CAUGHT_CRASHES} <= causes | set(NOT_REACHABLE)
    assert not causes & set(NOT_REACHABLE)
    names = {state.partition(",")[0] for state in states}
    assert {kind.value.capitalize() for kind in TERMINAL} <= names
    assert set(KINDS) == set(chain.from_iterable(path.hooks for path in TABLE))


@pytest.mark.parametrize("path", TABLE, ids=lambda path: path.key)
def test_omissions_leave_cases_out_and_some_in(path: ExitPath) -> None:
    """Each reason for leaving cases out holds for some, and every row is run."""
    for omission in path.omits:
        assert any(map(omission.covers, combinations(path))), omission
    assert cases([path])


@pytest.mark.anyio
@pytest.mark.usefixtures("anyio_backend")
@pytest.mark.parametrize("decorate", [flow, task])
async def test_a_call_that_holds_the_loop_does_not_wait_for_it(decorate: Any) -> None:
    """A sync call on a loop refuses an upstream that only this loop could end."""
    async with Engine() as engine:
        upstream = engine.start(flow(anyio.sleep_forever))
        with pytest.raises(BlockingCallError, match="await"):
            decorate(lambda value: value)(upstream)
        upstream.cancel()


@pytest.mark.timeout(300)  # run by itself, it runs all the listed rows
def test_readme_shows_what_was_observed() -> None:
    """The README's table is what the listed rows have shown in this very run."""
    assert is_current(), "run: python -m tests.exit_contract --write"
