"""Flows and tasks are functions: call them, and each call is a run with states.

Nothing else is needed. A sync flow runs in the thread that calls it, without an event
loop, and so do the tasks that it calls.
"""

import threading

from engine import flow, task


@task
def capitalise(name: str) -> str:
    return name.capitalize()


@flow(flow_run_name="greeting-for-{name}")
def greet(name: str) -> str:
    return f"Hello, {capitalise(name)}!"


if __name__ == "__main__":
    print(greet("ada"))

    state = greet("grace", return_state=True)
    print(state.name, "with", repr(state.data))

    # Arguments that do not fit make a failed run as well, not only an exception.
    state = greet("ada", "lovelace", return_state=True)
    print(state)

    print(threading.active_count(), "thread")
