"""Every kind of hook, seen on one task that ends in every kind of way.

A hook is called with the task (or flow), the run, and the state that was entered; one
run's hooks in order, one at a time. What a hook raises is logged and changes nothing.
"""

import anyio

from engine import Engine, Hook, State, Task, TaskRun, Transition, task

AnyTask = Task[..., object]
transitions: list[Transition] = []


def say(task: AnyTask, run: TaskRun, state: State[object]) -> None:
    print(f"  {state.name}, attempt {run.attempt}")


async def alert(task: AnyTask, run: TaskRun, state: State[object]) -> None:
    print(f"  {state.name}: alert! {state.message}")


def regret(task: AnyTask, run: TaskRun, state: State[object]) -> None:
    print(f"  once more, after {state.message}")


@task(
    retries=1,
    on_running=[say],
    on_retry=[regret],
    on_completion=[say],
    on_failure=[say, alert],
    on_crashed=[say, alert],
    on_cancellation=[say],
)
async def work(how: str) -> None:
    if how == "fails":
        raise ValueError("no luck")
    if how == "crashes":
        raise SystemExit("somebody called exit()")
    if how == "is cancelled":
        await anyio.sleep_forever()


@work.on_completion
def fail_itself(task: AnyTask, run: TaskRun, state: State[object]) -> None:
    raise ConnectionError("the chat server is down")


async def dawdle(task: AnyTask, run: TaskRun, state: State[object]) -> None:
    await anyio.sleep_forever()


async def main() -> None:
    async with Engine(on_transition=[transitions.append]) as engine:
        for how in ("returns", "fails", "crashes", "is cancelled"):
            print(f"One that {how}:")
            handle = engine.start(work, how)
            if how == "is cancelled":
                await anyio.wait_all_tasks_blocked()
                handle.cancel("nobody needs it any more")
            print(f"  -> {await handle.join()}")

        print("One whose hook takes too long:")
        patient = work.with_options(on_completion=[Hook(dawdle, timeout=0.05)])
        handle = engine.start(patient, "returns")
        print(f"  -> {await handle.join()}, all the same")
        print(f"  {handle.hook_outcomes[-1].error}")

    print(f"{len(transitions)} transitions, {engine.statistics().hooks}")


if __name__ == "__main__":
    anyio.run(main)
