"""A live view of everything that an engine does, by subscribing to its transitions.

The buffer has a size, and a rule for when it is full. ``drop_oldest`` suits a display:
a reader that falls behind costs the runs nothing and is told how much it has missed.
``block``, the default, loses nothing: the runs wait for the reader.
"""

from collections.abc import AsyncIterable

import anyio

from engine import Engine, Gap, Transition, flow, task

MENU = {"soup": 20, "salad": 5, "soufflé": 30, "roast": 60}


@task
async def cook(dish: str, minutes: int) -> str:
    await anyio.sleep(minutes / 500)
    if dish == "soufflé":
        raise RuntimeError("it collapsed")
    return dish


@flow
async def dinner() -> str:
    dishes = cook.map(list(MENU), list(MENU.values()))
    states = [await dish.join() for dish in dishes]
    served = [state.data for state in states if state.is_completed()]
    return f"{len(served)} dishes are served: {', '.join(served)}"


async def show_progress(transitions: AsyncIterable[Transition | Gap]) -> None:
    done = 0
    async for item in transitions:
        if isinstance(item, Gap):
            print(f"(missed {item.missed} transitions)")
        elif item.run.parent_run_id is not None and item.state.is_final():
            done += 1
            bar = "#" * done + "." * (len(MENU) - done)
            print(f"[{bar}] {item.run.parameters['dish']:<8} {item.state.name}")


async def main() -> None:
    # The engine closes first, and that ends the subscription.
    async with anyio.create_task_group() as group, Engine() as engine:
        transitions = engine.subscribe(buffer=100, overflow="drop_oldest")
        group.start_soon(show_progress, transitions)
        print(await engine.run(dinner))


if __name__ == "__main__":
    anyio.run(main)
