"""SIGTERM: what an engine does that handles it.

Its live runs are Crashed, cause ``terminated``, and its block ends with `Terminated`.

The handler is called in the middle of whatever the main thread executes. On a loop that
is mostly the loop's own business, and the engine's block is cancelled as soon as the
loop gets to it. A sync body that holds the thread is interrupted, as Ctrl-C would; a
sync hook is not, and the call that it is a part of raises when it is over.
"""

from __future__ import annotations

import _thread
import signal
import time
from contextlib import ExitStack
from threading import main_thread
from typing import TYPE_CHECKING, Final

from engine.actors import messages as m
from engine.context import IN_HOOK, run_of_this_thread
from engine.exceptions import Terminated

if TYPE_CHECKING:
    from engine.actors.run import RunActor
    from engine.host import Engine


LONGEST_WAIT: Final = 0.5
"""Seconds that the main thread waits for its runs to be told."""


def send_again() -> None:
    """Send the signal once more, when the main thread has had time to go on."""
    time.sleep(0.001)
    main = main_thread().ident
    if main is None or not hasattr(signal, "pthread_kill"):
        signal.raise_signal(signal.SIGTERM)
    else:
        signal.pthread_kill(main, signal.SIGTERM)  # which wakes it if it waits


class Termination:
    """How one engine handles SIGTERM.

    Attributes:
        has_come: Whether the process was told to end.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.has_come = False
        # The run in whose sync hook it came.
        self._hook_of: RunActor | None = None
        self._undo = ExitStack()

    def listen(self) -> None:
        """Handle the signal from now on.

        Raises:
            ValueError: This is not the main thread, which alone can.
        """
        try:
            previous = signal.signal(signal.SIGTERM, self._on_signal)
        except ValueError:
            text = "Engine(signals=True) works in the main thread only, as signals do"
            raise ValueError(f"{text}: elsewhere, leave signals=False") from None
        if previous is not None:  # else Python did not set it, and cannot do it again
            self._undo.callback(signal.signal, signal.SIGTERM, previous)
        home = self._engine.loops.home
        if home is not None:
            self._undo.callback(home.wake_at_signals())
            signal.signal(signal.SIGTERM, self._on_signal)  # that may have replaced it

    def close(self) -> None:
        """Leave the signal to who handled it before."""
        self._undo.close()

    def is_owed_by(self, run: RunActor) -> bool:
        """Whether the call of *run*, which is over, has to raise `Terminated`."""
        if self._hook_of is not run:
            return False
        self._hook_of = None
        return True

    def _on_signal(self, *_: object) -> None:
        home, run = self._engine.loops.home, run_of_this_thread()
        if home is not None and run is None:
            home.call_soon(self._end_block)
            return
        if self._engine.lock._is_owned():
            # In the middle of a message, of which half must not get lost.
            _thread.start_new_thread(send_again, ())
            return
        self._end_runs_elsewhere()
        if run is not None and IN_HOOK.get():
            self._hook_of = run
        else:
            raise Terminated

    def _end_block(self) -> None:
        self._end_runs()
        self._engine.cancel_block()

    def _end_runs_elsewhere(self) -> None:
        """End the runs from another thread: this one may hold anything.

        Such as the lock in an `Event` that it is about to wait for, and that the end of
        a run sets. If that keeps the other thread, this one must not wait for it.
        """
        self.has_come = True
        done = _thread.allocate_lock()
        done.acquire()

        def end_runs() -> None:
            try:
                self._end_runs()
            finally:
                done.release()

        _thread.start_new_thread(end_runs, ())
        done.acquire(timeout=LONGEST_WAIT)

    def _end_runs(self) -> None:
        self.has_come = True
        for run in tuple(self._engine.live):
            run.send(m.TERMINATE)
