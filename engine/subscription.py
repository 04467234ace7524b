"""A subscriber's end of the broadcast: an async iterator over transitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Self, TypeVar

from engine.dispatch.here import loop_waiter

if TYPE_CHECKING:
    from types import TracebackType

    from engine.actors.broadcast import Broadcast, Buffer, BufferStatistics, Overflow

T_co = TypeVar("T_co", covariant=True)


class Subscription(Generic[T_co]):
    """Transitions from now on, in order, for one reader at a time.

    Ends when the engine closes, after what was buffered. Leaving the ``async with``
    block, or `close`, ends it at once.
    """

    def __init__(self, broadcast: Broadcast, size: int, overflow: Overflow) -> None:
        self._buffer: Buffer = broadcast.subscribe(size, overflow)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T_co:
        """Wait for the next transition.

        Raises:
            SubscriberOverflow: The reader was cut off (``overflow="fail"``).
        """
        buffer = self._buffer
        while True:
            item = buffer.take()
            if item is not None:
                return item  # type: ignore[return-value]
            if buffer.closed:
                raise StopAsyncIteration
            await loop_waiter().wait(buffer.await_item)

    def close(self) -> None:
        """Take no more transitions, and let go of runs that wait for room."""
        self._buffer.discard()

    def statistics(self) -> BufferStatistics:
        """Return how full the buffer is and what was dropped."""
        return self._buffer.statistics()
