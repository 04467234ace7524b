"""Many runs at a time over any number of items, in memory for only so many.

`stream` takes any iterable, also an endless or an async one, starts at most *limit*
runs ahead of its reader, and gives their handles in the order in which they end.
"""

from collections import Counter
from collections.abc import AsyncIterator

import anyio

from engine import Engine, State, Task, TaskRun, flow, task

causes: Counter[str | None] = Counter()


def count(task: Task[..., object], run: TaskRun, state: State[object]) -> None:
    causes[state.cause] += 1


@task(on_cancellation=[count])
async def measure(number: int) -> int:
    if number % 1000 == 999:
        raise ValueError(f"{number} is out of order")
    await anyio.sleep(number % 7 / 1000)
    return number % 7


async def numbers(count: int) -> AsyncIterator[int]:
    """Stand for a source that is slow itself, such as a query or a socket."""
    for number in range(count):
        if number % 500 == 0:
            await anyio.sleep(0.01)
        yield number


@flow
async def add_up(count: int) -> int:
    """Go on when one fails: its handle comes like any other."""
    total, failures = 0, 0
    items = numbers(count)
    async for handle in measure.stream(items, limit=100, on_error="continue"):
        if handle.state.is_completed():
            total += await handle
        else:
            failures += 1
    print(f"{failures} of {count} failed, the others add up to {total}")
    return total


@flow
async def add_up_strictly(count: int) -> int:
    """Stop when one fails: its siblings are cancelled, and its error is raised."""
    total = 0
    async for handle in measure.stream(range(count), limit=100, on_error="cancel"):
        total += await handle
    return total


async def main() -> None:
    async with Engine() as engine:
        await add_up(5_000)
        state = await add_up_strictly(5_000, return_state=True)
        print(state)
        print(dict(causes))
        print(engine.statistics().transitions, "transitions")


if __name__ == "__main__":
    anyio.run(main)
