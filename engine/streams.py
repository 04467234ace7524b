"""Streams: one task over any number of items, in bounded memory."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

import anyio

from engine.actors import messages as m
from engine.dispatch.here import loop_waiter
from engine.fanout import Arrivals
from engine.states import COMPLETED

if TYPE_CHECKING:
    from engine.actors.run import RunActor
    from engine.dispatch.base import LoopDispatcher, Wake
    from engine.handles import RunHandle

T = TypeVar("T")


class Stream(Generic[T]):
    """Runs of one task over many items, at most so many at a time.

    Gives a handle for each item, in the order in which the runs end, through ``async
    for``, or ``for`` in sync code. A run that has ended but was not yet asked for
    counts as one of the many, so memory stays bounded however slow the reader is.

    Leaving the iteration early and dropping the stream, or `close`, cancels what is
    live.
    """

    def __init__(
        self,
        submit: Callable[[Any], RunHandle[T]],
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        limit: int,
        on_error: Literal["cancel", "continue"],
        here: Callable[[], tuple[LoopDispatcher, RunActor | None]],
    ) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int):
            raise TypeError(f"limit must be a whole number, got {limit!r}")
        if limit < 1:
            raise ValueError(f"limit must be >= 1, got {limit}")
        if on_error not in ("cancel", "continue"):
            choices = "'cancel' or 'continue'"
            raise ValueError(f"on_error must be {choices}, got {on_error!r}")
        self._submit = submit
        self._here = here
        self._limit = limit
        self._stops_on_error = on_error == "cancel"
        self._arrivals: Arrivals[T] = Arrivals()
        self._items: Iterator[Any] | None = None
        self._feed: Feed[T] | None = None
        if isinstance(items, AsyncIterable):
            self._feed = Feed(self._arrivals, submit, items, limit)
        elif isinstance(items, Iterable):
            self._items = iter(items)
        else:
            kind = type(items).__name__
            raise TypeError(f"stream() takes an iterable or async iterable, got {kind}")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RunHandle[T]:
        if self._feed is not None:
            self._feed.start(*self._here())
            handle = await self._feed.next()
        else:
            self._fill()
            handle = await self._arrivals.next() if self._arrivals.pending else None
        if handle is None:
            raise StopAsyncIteration
        if not self._is_failure(handle):
            return handle
        self._cancel_siblings()
        while self._arrivals.pending:
            await self._arrivals.next()
        try:
            await handle
        finally:
            del handle  # see engine.tracebacks
        raise AssertionError("the failed run did not raise")

    def __iter__(self) -> Self:
        if self._feed is not None:
            raise TypeError("a stream over an async iterable needs 'async for'")
        return self

    def __next__(self) -> RunHandle[T]:
        self._fill()
        handle = self._arrivals.next_blocking(None) if self._arrivals.pending else None
        if handle is None:
            raise StopIteration
        if not self._is_failure(handle):
            return handle
        self._cancel_siblings()
        while self._arrivals.pending:
            self._arrivals.next_blocking(None)
        try:
            handle.result()
        finally:
            del handle  # see engine.tracebacks
        raise AssertionError("the failed run did not raise")

    def close(self) -> None:
        """Start nothing more and cancel what is live; does not wait for it."""
        self._items = iter(())
        if self._feed is not None:
            self._feed.stop()
        for handle in tuple(self._arrivals.pending):
            handle._actor.send(m.CancelRequested("parent", "its stream was closed"))

    async def aclose(self) -> None:
        """Cancel what is live, close the source, and wait until both are done."""
        self.close()
        while self._arrivals.pending:
            await self._arrivals.next()
        if self._feed is not None:
            while not self._feed.has_ended:
                await loop_waiter().wait(self._feed.subscribe)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if getattr(self, "_arrivals", None) is not None:
            self.close()

    def _fill(self) -> None:
        items = self._items
        while items is not None and len(self._arrivals.pending) < self._limit:
            try:
                item = next(items)
            except StopIteration:
                self._items = None
                return
            self._arrivals.add(self._submit(item))

    def _is_failure(self, handle: RunHandle[T]) -> bool:
        return self._stops_on_error and handle._actor.state_type is not COMPLETED

    def _cancel_siblings(self) -> None:
        self._items = None
        if self._feed is not None:
            self._feed.stop()
        for handle in tuple(self._arrivals.pending):
            handle._actor.send(m.CancelRequested("sibling"))


class Feed(Generic[T]):
    """Takes items from an async iterable in a task of its own.

    So a slow source does not keep results from a reader, nor a slow reader the source.
    It is among the children of the run that streams, which ends after it, and closes
    its source before it ends.
    """

    def __init__(
        self,
        arrivals: Arrivals[T],
        submit: Callable[[Any], RunHandle[T]],
        items: AsyncIterable[Any],
        limit: int,
    ) -> None:
        self._arrivals = arrivals
        self._submit = submit
        self._items = items
        self._limit = limit
        self._loop: LoopDispatcher | None = None
        self._parent: RunActor | None = None
        self._scope: anyio.CancelScope | None = None
        self._room: Wake | None = None
        self._error: BaseException | None = None
        self.is_stopped = False
        self.has_ended = False

    def start(self, loop: LoopDispatcher, parent: RunActor | None) -> None:
        """Begin taking items, once, as a child of *parent*."""
        if self._loop is None:
            self._loop, self._parent = loop, parent
            self._scope = anyio.CancelScope()
            if parent is not None:
                parent.adopt(self)
            loop.spawn_service(self._run)

    def send(self, _: object) -> None:
        """Stop, whatever the parent says: it says nothing else."""
        self.stop()

    def stop(self) -> None:
        """Take no more items; from any thread."""
        self.is_stopped = True
        if self._loop is None:
            self.has_ended = True
        elif self._scope is not None:
            self._loop.call_soon(self._scope.cancel)

    async def next(self) -> RunHandle[T] | None:
        """Wait for the next run to end; None after the last, or raise what ended it."""
        while True:
            handle = self._arrivals.take()
            if handle is not None:
                self._make_room()
                return handle
            if self._is_exhausted():
                if self._error is not None:
                    raise self._error
                return None
            await loop_waiter().wait(self.subscribe)

    def subscribe(self, wake: Wake) -> bool:
        """Have *wake* called when a run ends or the feed does; False if both have."""
        return not self._is_exhausted() and self._arrivals.subscribe(wake)

    def _is_exhausted(self) -> bool:
        return self.has_ended and not self._arrivals.pending

    async def _run(self) -> None:
        assert self._scope is not None
        try:
            with self._scope:
                await self._take_all()
        except Exception as error:
            self._error = error
        finally:
            self.has_ended = True
            if self._parent is not None:
                self._parent.release(self)
            self._arrivals.wake()

    async def _take_all(self) -> None:
        try:
            async for item in self._items:
                if self.is_stopped:
                    return
                self._arrivals.add(self._submit(item))
                while len(self._arrivals.pending) >= self._limit:
                    await loop_waiter().wait(self._await_room)
        finally:
            close = getattr(self._items, "aclose", None)
            if close is not None:
                with anyio.CancelScope(shield=True):
                    await close()

    def _await_room(self, wake: Wake) -> bool:
        if len(self._arrivals.pending) < self._limit:
            return False
        self._room = wake
        return True

    def _make_room(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room()
