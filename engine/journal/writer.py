"""The one thread that writes a journal.

It commits what the recorder has, in batches: while one is on its way to the disk, the
next gathers, so a slow disk makes larger batches rather than a longer queue.

Trouble that may pass, such as a full disk, is waited out: the batch is kept and tried
again, new runs are refused meanwhile. Trouble that does not, such as a failed fsync,
ends the journal for this engine. If the thread itself dies it is started again, within
the supervisor's intensity, and goes on with the batch it had in hand.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from engine.journal.clerk import Clerk
from engine.journal.exceptions import JournalBroken, JournalError, JournalFull
from engine.logging import log
from engine.states import safe_text

if TYPE_CHECKING:
    from engine.actors.hook import HookActor
    from engine.dispatch.base import Wake
    from engine.journal.base import Journal, Opening, Owner
    from engine.journal.entries import Page
    from engine.journal.recorder import Recorder

RETRY_SECONDS: Final = 0.05
"""Between two attempts to write; with the time one takes below a tenth of a second,
within which new runs have to learn that they cannot start."""

CLOSING_SECONDS: Final = 5.0
"""How long a closing engine goes on trying to write what is left."""

TIDY_EVERY: Final = 5000
"""Entries between two compactions."""


class Writer:
    """Owns the journal's thread.

    Args:
        journal: What to write to.
        recorder: Where the entries come from.
        hooks: Told what is committed, and what cannot be.
        make_owner: Makes the owner, of another prefix each time.
        may_restart: Asked when the thread has died of an error.
        on_trouble: Told when the trouble begins, and with None when it has passed.
    """

    def __init__(
        self,
        journal: Journal,
        recorder: Recorder,
        hooks: HookActor,
        *,
        make_owner: Callable[[], Owner],
        may_restart: Callable[[BaseException], bool],
        on_trouble: Callable[[JournalError | None], None],
    ) -> None:
        self._journal = journal
        self._recorder = recorder
        self._hooks = hooks
        self._make_owner = make_owner
        self._may_restart = may_restart
        self._on_trouble = on_trouble
        self._lock = threading.Lock()
        self._opened = False
        self._open_waiters: list[Wake] = []
        self._error: BaseException | None = None
        self._opening: Opening | None = None
        self._since_tidied = 0
        self._gave_up_at = float("inf")
        self._thread = self._new_thread()

    # What the engine asks.

    def start(self) -> None:
        """Start the thread, which opens the journal first."""
        self._thread.start()

    def subscribe_opened(self, wake: Wake) -> bool:
        """Have *wake* called when the journal is open, or cannot be; False if so."""
        with self._lock:
            if self._opened:
                return False
            self._open_waiters.append(wake)
            return True

    def opening(self) -> Opening:
        """Return what was found in the journal, or raise what kept it from opening."""
        if self._error is not None:
            raise self._error
        assert self._opening is not None
        return self._opening

    def stop(self) -> None:
        """Write what is left and let go of the journal; blocks for a bounded time."""
        self._gave_up_at = time.monotonic() + CLOSING_SECONDS
        self._recorder.finish()
        if self._thread.is_alive():
            self._thread.join(CLOSING_SECONDS + 1.0)
        if self._thread.is_alive():
            log.error("journal_writer_hangs", path=self._journal.path)

    def was_forked(self) -> None:
        """Leave the journal alone: this process is a fork, without the thread."""
        self._recorder.was_forked()
        self._journal.was_forked()

    # The thread.

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, name="engine-journal", daemon=True)

    def _run(self) -> None:
        try:
            if self._opening is None:
                self._open()
            self._serve()
        except BaseException as error:
            self._died(error)
            return
        if self._opening is not None:
            self._journal.close(clean=not self._recorder.closed)

    def _open(self) -> None:
        try:
            while self._opening is None:
                owner = self._make_owner()
                self._opening = self._journal.open(owner)
            opening = self._opening
            self._recorder.clerk = Clerk(
                opening.owner, opening.base, opening.definitions
            )
        except BaseException as error:
            self._error = error
            self._recorder.finish()
            self._journal.close(clean=False)
        finally:
            with self._lock:
                self._opened = True
                waiters, self._open_waiters = self._open_waiters, []
            for wake in waiters:
                wake()

    def _serve(self) -> None:
        if self._opening is None:
            return
        if self._recorder.in_hand is not None:
            self._journal.reopen()
            self._commit(self._recorder.in_hand)
        while (page := self._recorder.take_page()) is not None:
            self._commit(page)
            self._tidy(len(page))

    def _commit(self, page: Page) -> None:
        """Write a page, however long it takes, and tell who waits for it."""
        batch = self._recorder.clerk.write_up(page)
        while not self._recorder.closed:
            try:
                self._journal.write(batch)
            except JournalBroken as error:
                self._give_up(error)
            except JournalError as error:
                self._bear(error)
            else:
                self._recorder.clerk.committed()
                self._written()
                return

    def _written(self) -> None:
        if self._recorder.problem is not None:
            log.warning("journal_recovered", path=self._journal.path)
            self._on_trouble(None)
        page = self._recorder.turn_page()
        self._hooks.go_on(page.lanes)

    def _bear(self, error: JournalError) -> None:
        """Refuse new runs, wait a little, and perhaps give up."""
        if self._recorder.problem is None:
            log.error("journal_unwritable", path=error.path, problem=error.problem)
        self._on_trouble(error)
        if time.monotonic() >= self._gave_up_at:
            self._give_up(error)
            return
        if self._recorder.closing.is_set():
            time.sleep(RETRY_SECONDS)
        else:
            self._recorder.closing.wait(RETRY_SECONDS)
        if not isinstance(error, JournalFull):
            self._try_to_reopen()

    def _try_to_reopen(self) -> None:
        try:
            self._journal.reopen()
        except JournalBroken as error:
            self._give_up(error)
        except JournalError as error:
            log.debug("journal_not_reopened", path=error.path, problem=error.problem)

    def _give_up(self, error: JournalError) -> None:
        """Write no more: nobody waits for the disk from now on."""
        self._on_trouble(error)
        log.error(
            "journal_given_up",
            path=error.path,
            problem=error.problem,
            unwritten=self._recorder.abandon(error),
        )

    def _tidy(self, entries: int) -> None:
        self._since_tidied += entries
        if self._since_tidied < TIDY_EVERY:
            return
        try:
            if not self._journal.tidy():
                self._since_tidied = 0
        except JournalError as error:
            # The next batch will find out whether it is serious.
            log.warning("journal_not_tidied", problem=error.problem)
            self._since_tidied = 0

    def _died(self, error: BaseException) -> None:
        if self._may_restart(error):
            self._thread = self._new_thread()
            self._thread.start()
            return
        path = self._journal.path
        self._give_up(JournalBroken(path, f"its writer died: {safe_text(error)}"))
        self._journal.close(clean=False)
