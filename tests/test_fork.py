"""Forked children: what they inherit of an engine neither works nor holds them up."""

import os

import pytest
from support import output_of

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

FORK = """
import os, signal, threading
from engine import Engine, flow, task
from engine.cache_policies import INPUTS

def fork(act):
    '''Do something in a child, which ends at once if that hangs; print how it ends.'''
    child = os.fork()
    if not child:
        signal.alarm(5)
        try:
            act()
        except RuntimeError as error:
            print(type(error).__name__, flush=True)
        os._exit(0)
    print("child", os.waitpid(child, 0)[1])
"""


def test_the_engine_of_one_call_is_not_the_child_s() -> None:
    """A call in the child opens its own; what it submits would be nobody's."""
    assert output_of(FORK + ONE_CALL) == ["1", "NoEngineError", "child 0"]


ONE_CALL = """
@task
def work(): return 1

def act():
    print(work(), flush=True)
    work.submit()

@flow
def forks(): fork(act)

forks()
"""


def test_nobody_makes_a_result_for_the_child() -> None:
    """A result that its parent was about to make, it makes itself."""
    assert output_of(FORK + FLYING) == ["2", "child 0"]


FLYING = """
parent = os.getpid()

@task(cache_policy=INPUTS)
def double(x):
    if os.getpid() == parent:
        fork(lambda: print(double(x), flush=True))
    return 2 * x

with Engine():
    double(1)
"""


def test_no_thread_keeps_the_child_waiting() -> None:
    """One that held the engine's lock as the process forked is not in the child."""
    lines = output_of(FORK + LOCKED, "-W", "ignore::DeprecationWarning")
    assert lines == ["Cancelled", "0", "left", "child 0", "1"]


LOCKED = """
begun, go_on = threading.Event(), threading.Event()
is_held, let_go = threading.Event(), threading.Event()

@task
def waits():
    begun.set()
    go_on.wait()
    return 1

def hold():
    with engine.lock:
        is_held.set()
        let_go.wait()

def act():
    handle.cancel()
    print(handle.state.name, engine.statistics().live_runs, sep="\\n", flush=True)
    engine.__exit__(None, None, None)
    print("left", flush=True)

with Engine() as engine:
    handle = engine.start(waits)
    begun.wait()
    threading.Thread(target=hold).start()
    is_held.wait()
    fork(act)
    let_go.set()
    go_on.set()
    print(handle.result())
"""
