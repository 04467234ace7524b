"""The same methods in async code: awaited, and never on the loop's thread."""

import gc
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from engine import flow, task
from engine.blocks import Block, MemoryStore, rotate_secrets, use_store
from engine.blocks._bridge import THREADS, do, in_async_code
from engine.blocks.exceptions import BlockExistsError, BlockNameError
from engine.blocks.system import String
from engine.settings import get_current_settings, temporary_settings


class WatchedStore(MemoryStore):
    """Notes the threads it is used from, and can be made to hang."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[threading.Thread] = set()
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def wait(self) -> None:
        self.threads.add(threading.current_thread())
        self.entered.set()
        self.go_on.wait(5)

    def put(self, *args: Any, **kwargs: Any) -> Any:
        self.wait()
        return super().put(*args, **kwargs)

    def get(self, *args: Any) -> Any:
        self.wait()
        return super().get(*args)

    def delete(self, *args: Any) -> bool:
        self.wait()
        return super().delete(*args)

    def references(self, *args: Any) -> Any:
        self.wait()
        return super().references(*args)


@pytest.fixture
def store() -> Iterator[WatchedStore]:
    store = WatchedStore()
    yield store
    store.go_on.set()


def test_sync_code_is_not_async_code() -> None:
    assert not in_async_code()


async def test_code_on_a_loop_is_async_code_and_its_worker_threads_are_not() -> None:
    assert in_async_code()
    assert not await anyio.to_thread.run_sync(in_async_code)


async def test_every_method_can_be_awaited() -> None:
    block_id = await String(value="s").save("x")
    assert await String(value="t").save("x", overwrite=True) == block_id
    assert (await String.load(name="x")).value == "t"
    assert (await Block.load("string/x")).value == "t"  # type: ignore[attr-defined]
    assert await Block.names() == ["string/x"]
    assert await String.delete("x") is None
    assert await String.names() == []


async def test_the_waiting_is_never_on_the_loops_thread(store: WatchedStore) -> None:
    with use_store(store):
        await String(value="s").save("x")
        await String.load("x")
    assert len(store.threads) >= 1
    assert threading.current_thread() not in store.threads


CALLS = {
    "save": lambda: String(value="s").save("y"),
    "load": lambda: String.load("x"),
    "load by reference": lambda: Block.load("string/x"),
    "delete": lambda: String.delete("x"),
    "names": Block.names,
    "rotate_secrets": rotate_secrets,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
@pytest.mark.parametrize("inside", ["plain", "flow", "hook"])
async def test_the_loop_goes_on_while_the_store_hangs(
    store: WatchedStore, call: Callable[[], Any], inside: str
) -> None:
    """In plain code, in a flow and in its hooks."""
    done = anyio.Event()

    async def use(*_: object) -> None:
        await call()
        done.set()

    async def nothing() -> None:
        """Do nothing."""

    programs = {
        "plain": use,
        "flow": flow(use, name="work"),
        "hook": flow(nothing, on_completion=[use]),
    }
    with use_store(store):
        await String(value="s").save("x")
        store.entered.clear()
        store.go_on.clear()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(programs[inside])
            while not store.entered.is_set():
                await anyio.lowlevel.checkpoint()
            await anyio.wait_all_tasks_blocked()
            assert not done.is_set()
            store.go_on.set()
            await done.wait()


async def test_errors_are_raised_where_it_is_awaited() -> None:
    await String(value="s").save("x")
    with pytest.raises(BlockExistsError):
        await String(value="s").save("x")


async def test_a_wrong_name_is_refused_at_the_call() -> None:
    with pytest.raises(BlockNameError):
        String.load("No Name")


async def test_settings_and_store_of_the_caller_are_used_in_the_thread() -> None:
    with temporary_settings(api_url="x"):
        assert (await do("x", get_current_settings, abandon=True)).api.url == "x"


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: String.load("x"), "String.load('x')"),
        (lambda: String(value="s").save("x"), "String.save('x')"),
        (lambda: String.delete("x"), "String.delete('x')"),
        (Block.names, "Block.names()"),
    ],
)
async def test_an_awaitable_that_is_never_awaited_is_warned_about_by_its_name(
    call: Any, name: str
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
        gc.collect()
    assert f"coroutine {name!r} was never awaited".replace('"', "'") in str(
        caught[0].message
    ).replace('"', "'")
    assert caught[0].category is RuntimeWarning


async def test_a_cancelled_save_ends_when_it_is_written(store: WatchedStore) -> None:
    store.go_on.clear()
    with use_store(store):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(String(value="s").save, "x")
            while not store.entered.is_set():
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
            store.go_on.set()
        assert await Block.names() == ["string/x"]


async def test_a_cancelled_load_ends_at_once(store: WatchedStore) -> None:
    store.go_on.clear()

    async def load() -> None:
        await String.load("x")

    with use_store(store):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load)
            while not store.entered.is_set():
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    assert not store.go_on.is_set(), "it was not waited for"


async def test_blocks_leave_the_programs_own_threads_alone(
    store: WatchedStore,
) -> None:
    limiter = anyio.to_thread.current_default_thread_limiter()
    store.go_on.clear()
    with use_store(store):
        async with anyio.create_task_group() as tasks:
            for number in range(THREADS + 1):
                tasks.start_soon(String(value="s").save, f"x-{number}")
            while not store.entered.is_set():
                await anyio.lowlevel.checkpoint()
            assert limiter.borrowed_tokens == 0
            store.go_on.set()
        assert len(await Block.names()) == THREADS + 1


async def test_a_sync_flow_that_holds_the_loop_is_sync_code_and_so_are_its_hooks() -> (
    None
):
    seen: list[Any] = []

    def sync_hook(_flow: object, _run: object, _state: object) -> None:
        seen.append(String.load("x").value)

    async def async_hook(_flow: object, _run: object, _state: object) -> None:
        seen.append((await String.load("x")).value)

    @flow(on_completion=[sync_hook, async_hook])
    def save() -> None:
        seen.append(String(value="s").save("x"))

    save()
    assert isinstance(seen[0], UUID)
    assert seen[1:] == ["s", "s"]


async def test_an_async_flow_awaits_and_so_do_its_async_hooks() -> None:
    seen: list[Any] = []

    def sync_hook(_flow: object, _run: object, _state: object) -> None:
        seen.append(String.load("x").value)

    async def async_hook(_flow: object, _run: object, _state: object) -> None:
        seen.append((await String.load("x")).value)

    @flow(on_completion=[sync_hook, async_hook])
    async def save() -> None:
        seen.append(await String(value="s").save("x"))

    await save()
    assert isinstance(seen[0], UUID)
    assert seen[1:] == ["s", "s"]


def test_an_async_hook_of_a_sync_flow_awaits() -> None:
    seen: list[Any] = []

    async def hook(_flow: object, _run: object, _state: object) -> None:
        seen.append((await String.load(name="x")).value)

    @flow(on_completion=[hook])
    def save() -> None:
        String(value="s").save("x", overwrite=True)

    save()
    assert seen == ["s"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("kind", [flow, task])
def test_code_on_a_loop_that_a_sync_run_has_started_is_async_code(
    kind: Any, backend: str
) -> None:
    """As ``asyncio.run(main())`` is in the body of a sync flow."""

    async def main() -> str:
        await String(value="s").save("x")
        return (await String.load("x")).value

    @kind
    def run_a_loop() -> Any:
        return anyio.run(main, backend=backend), String.load("x").value

    assert run_a_loop() == ("s", "s")


async def test_a_sync_task_on_a_loop_that_a_sync_flow_has_started_is_sync_code() -> (
    None
):
    @task
    def load() -> str:
        return String.load("x").value

    async def main() -> tuple[str, str]:
        return load(), (await String.load("x")).value

    @flow
    def run_a_loop() -> Any:
        String(value="s").save("x")
        return anyio.run(main)

    assert await anyio.to_thread.run_sync(run_a_loop) == ("s", "s")
