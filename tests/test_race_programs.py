"""Races that may hang or spoil a whole process, each in one of its own."""

from support import output_of

DEADLINE = """
import faulthandler
faulthandler.dump_traceback_later(10, exit=True)
"""
"""Ends a process that hangs, and says where each of its threads does."""


def test_runs_of_two_engines_that_wait_for_each_other_s() -> None:
    """The runs they wait for end at once; neither engine waits for the other's lock."""
    assert output_of(DEADLINE + CROSSED) == ["1", "2"]


CROSSED = """
import threading
from engine import Engine, task
from engine.actors.run import RunActor

may_end, both = threading.Event(), threading.Barrier(2)
settle = RunActor.settle

def settle_together(run):
    if run.definition is first:
        both.wait()
    settle(run)

RunActor.settle = settle_together

@task
def first(number):
    may_end.wait()
    return number

@task
def second(number): return number

with Engine() as one, Engine() as other:
    upstreams = one.start(first, 1), other.start(first, 2)
    handles = other.start(second, upstreams[0]), one.start(second, upstreams[1])
    may_end.set()
    for handle in handles:
        print(handle.result())
"""


def test_sigterm_while_the_main_thread_starts_another() -> None:
    """It comes in the middle of a change to the threads, some of which it gives up."""
    assert output_of(DEADLINE + TERMINATED) == ["Terminated", "terminated"]


TERMINATED = """
import signal, threading
from engine import Engine, flow, task
from engine.exceptions import Terminated
from engine.executors.thread import ThreadPool

add, begun = ThreadPool._add, threading.Event()

def add_and_terminate(pool, worker):
    add(pool, worker)
    if threading.current_thread() is threading.main_thread():
        ThreadPool._add = add
        signal.raise_signal(signal.SIGTERM)

@task
def hangs():
    begun.set()
    threading.Event().wait()

@flow
def main():
    begun.wait()
    ThreadPool._add = add_and_terminate
    hangs.submit().wait()

try:
    with Engine(signals=True) as engine:
        handle = engine.start(hangs)
        main()
except Terminated as error:
    print(type(error).__name__)
print(handle.state.cause)
"""


def test_no_call_finds_an_engine_whose_end_was_interrupted() -> None:
    """Ctrl-C ends its block early: what is called then opens an engine of its own."""
    assert output_of(DEADLINE + LEFT) == ["KeyboardInterrupt", "1", "NoEngineError"]


LEFT = """
import signal
from engine import Engine, task
from engine.executors.loops import Loops

@task
def work(): return 1

stop = Loops.stop

def interrupt(loops):
    Loops.stop = stop
    signal.raise_signal(signal.SIGINT)

Loops.stop = interrupt
try:
    with Engine():
        pass
except KeyboardInterrupt as error:
    print(type(error).__name__)
print(work())
try:
    work.submit()
except RuntimeError as error:
    print(type(error).__name__)
"""
