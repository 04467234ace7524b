"""Stopping runs: by handle, by deadline, by the caller's scope, and a stubborn one.

A cancelled run says who asked for it (its *cause*), and is Cancelled only when it has
stopped, clean-up included. A thread cannot be stopped from outside: a sync body is
given up on time instead, and counted until it returns.
"""

import threading
from typing import Any

import anyio

from engine import Engine, Flow, FlowRun, State, flow, task


@task
async def download(seconds: float) -> str:
    try:
        await anyio.sleep(seconds)
    finally:
        print("  (download cleans up)")
    return "data"


@flow
async def mirror(seconds: float) -> list[str]:
    return await download.map([seconds, seconds])


@mirror.on_cancellation
async def say_why(flow: Flow[..., Any], run: FlowRun, state: State[Any]) -> None:
    print(f"  mirror is {state.name}, cause {state.cause!r}: {state.message}")


@task(timeout_seconds=0.05)
def wait_in_a_thread(until: threading.Event) -> None:
    until.wait()


async def main() -> None:
    async with Engine(shutdown_grace=0.05) as engine:
        print("By its handle:")
        handle = engine.start(mirror, 60)
        await anyio.wait_all_tasks_blocked()
        handle.cancel("the user left")
        print(f"  {await handle.join()}")

        print("By its deadline:")
        impatient = download.with_options(timeout_seconds=0.05)
        print(f"  {await impatient(60, return_state=True)}")

        print("By the caller's scope:")
        with anyio.move_on_after(0.05):
            await engine.run(mirror, 60)

        print("A thread that does not listen:")
        event = threading.Event()
        print(f"  {await engine.start(wait_in_a_thread, event).join()}")
        print(f"  threads given up: {engine.statistics().abandoned_threads}")
        event.set()

        print("By the end of the engine, which waits 0.05 s for what is left:")
        handle = engine.start(mirror, 60)
    print(f"  {handle.state}")


if __name__ == "__main__":
    anyio.run(main)
