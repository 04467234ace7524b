"""The same flows on trio: nurseries, cancel scopes and channels, as trio code has them.

An async body runs in a cancel scope of its own on the host's loop, so everything that
trio offers works in it, and a sync body runs in a thread.
"""

import trio

from engine import Engine, flow, task


@task
async def parse(line: str) -> int:
    await trio.lowlevel.checkpoint()
    return len(line.split())


@flow
async def count_words(lines: trio.MemoryReceiveChannel[str]) -> int:
    """Read a channel while another task still writes to it."""
    total = 0
    async for handle in parse.stream(lines, limit=10):
        total += await handle
    return total


@flow
async def race(*seconds: float) -> float:
    """Return what the first of several children gives; the others are cancelled."""
    winners: list[float] = []

    async def run(delay: float) -> None:
        await trio.sleep(delay)
        winners.append(delay)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for delay in seconds:
            nursery.start_soon(run, delay)
    return winners[0]


async def write(channel: trio.MemorySendChannel[str]) -> None:
    async with channel:
        for number in range(100):
            await channel.send(f"line number {number}")


async def main() -> None:
    async with Engine() as engine, trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel[str](5)
        nursery.start_soon(write, send)
        print(await count_words(receive), "words")

        print("the fastest took", await race(0.05, 60, 60), "s")

        with trio.move_on_after(0.05) as scope:
            await race(60, 60)
        last = engine.runs(name="race")[-1]
        print(f"given up: {scope.cancelled_caught}; the run is {last.state_name}")


if __name__ == "__main__":
    trio.run(main)
