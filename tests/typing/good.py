"""Right calls, and what type checkers have to infer of them. Not run."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import timedelta
from functools import partial
from typing import Any, Literal, assert_type

import attrs

from engine import (
    Engine,
    Flow,
    FlowRun,
    Gap,
    Hook,
    HookOutcome,
    RunHandle,
    State,
    Task,
    TaskRun,
    Transition,
    allow_failure,
    as_completed,
    flow,
    quote,
    runtime,
    tags,
    task,
    transaction,
    unmapped,
    wait,
)
from engine.blocks import Block, MemoryStore, SecretStr, use_store
from engine.blocks.notifications import SlackWebhook, Webhook
from engine.blocks.system import Secret, String
from engine.cache_policies import (
    INPUTS,
    NO_CACHE,
    TASK_SOURCE,
    CacheContext,
    task_input_hash,
)
from engine.client import BlockDocument, get_client
from engine.results import MemoryResultStore, use_result_store
from engine.runs import RunRecord
from engine.settings import (
    ENGINE_API_URL,
    Settings,
    get_current_settings,
    temporary_settings,
)
from engine.states import Completed, Failed
from engine.tasks import exponential_backoff
from engine.transactions import CommitMode, Transaction, get_transaction


@flow
def plain_flow(x: int, y: str = "") -> str:
    return y * x


@flow
async def async_flow(x: int, *, y: str = "") -> str:
    return y * x


@task
def plain_task(x: int) -> list[int]:
    return [x]


@task
async def async_task(x: int) -> list[int]:
    return [x]


@flow(name="named", version="1", retries=2, retry_delay_seconds=[1, 2.5], tags={"a"})
def flow_with_options(x: int) -> str:
    return str(x)


@task(
    name="named",
    description="described",
    tags=["a", "b"],
    retries=3,
    retry_delay_seconds=exponential_backoff(2),
    retry_jitter_factor=0.5,
    retry_condition_fn=lambda task, run, state: True,
    timeout_seconds=1.5,
    task_run_name="{x}",
    log_prints=True,
)
async def task_with_options(x: int) -> str:
    return str(x)


@task
def nothing() -> None: ...


def calls() -> None:
    assert_type(plain_flow(1), str)
    assert_type(plain_flow(1, y="y"), str)
    assert_type(plain_task(1), list[int])
    assert_type(flow_with_options(1), str)
    assert_type(plain_flow(1, return_state=True), State[str])
    assert_type(plain_task(1, return_state=True), State[list[int]])
    assert_type(plain_flow(1, wait_for=[plain_task.submit(1)]), str)
    assert_type(plain_task(1, wait_for=[]), list[int])


async def async_calls() -> None:
    assert_type(await async_flow(1, y="y"), str)
    assert_type(await async_task(1), list[int])
    assert_type(await task_with_options(1), str)
    assert_type(await async_flow(1, return_state=True), State[str])
    assert_type(await async_task(1, return_state=True), State[list[int]])
    assert_type(await async_task(1, wait_for=[async_task.submit(1)]), list[int])
    called: Coroutine[Any, Any, str] = async_flow(1)
    assert_type(await called, str)


async def handles() -> None:
    handle = plain_task.submit(1)
    assert_type(handle, RunHandle[list[int]])
    assert_type(async_task.submit(x=1), RunHandle[list[int]])
    assert_type(task_with_options.submit(1), RunHandle[str])
    assert_type(plain_task.submit(1, wait_for=[handle]), RunHandle[list[int]])
    assert_type(async_task.submit(1, wait_for=[handle]), RunHandle[list[int]])
    assert_type(await handle, list[int])
    assert_type(await handle.join(), State[list[int]])
    assert_type(handle.wait(), State[list[int]])
    assert_type(handle.state, State[list[int]])
    assert_type(handle.run, FlowRun | TaskRun)
    assert_type(handle.hook_outcomes, tuple[HookOutcome, ...])
    assert_type(handle.unobserved, tuple[RunHandle[Any], ...])
    handle.cancel()
    handle.cancel("why")
    handle.cancel(reason="why")
    assert_type(await nothing.submit(), None)


def results() -> None:
    handle = plain_task.submit(1)
    assert_type(handle.result(), list[int])
    assert_type(handle.result(timeout=1), list[int])
    assert_type(handle.result(1, raise_on_failure=True), list[int])
    handle.result(raise_on_failure=False)
    state = plain_task(1, return_state=True)
    assert_type(state.result(), list[int])
    state.result(raise_on_failure=False)


async def fan_out() -> None:
    for one in plain_task.map([1, 2]):
        assert_type(one, RunHandle[list[int]])
    assert_type(await async_task.map(range(3)), list[list[int]])
    assert_type(async_task.map(unmapped(1))[0], RunHandle[list[int]])
    assert_type(plain_task.map([1]).wait(), list[State[list[int]]])
    assert_type(plain_task.map([1]).result(), list[list[int]])
    async for handle in async_task.stream([1, 2], limit=5, on_error="continue"):
        assert_type(handle, RunHandle[list[int]])
    for handle in plain_task.stream(x for x in range(3)):
        assert_type(await handle, list[int])
    async for handle in plain_task.stream(arriving(), y=1):
        assert_type(handle, RunHandle[list[int]])
    async with async_task.stream(arriving()) as stream:
        assert_type(await anext(stream), RunHandle[list[int]])
    async for done in as_completed([async_task.submit(1)]):
        assert_type(done, RunHandle[list[int]])
    for done in as_completed(plain_task.map([1]), timeout=5):
        assert_type(done, RunHandle[list[int]])
    ready, not_ready = wait(plain_task.map([1]), timeout=1)
    assert_type(ready, set[RunHandle[Any]])
    assert_type(not_ready, set[RunHandle[Any]])


async def arriving() -> AsyncIterator[int]:
    yield 1


async def engines() -> None:
    async with Engine(max_concurrency=5, shutdown_grace=1) as engine:
        assert_type(engine, Engine)
        assert_type(await engine.run(plain_flow, 1, y="y"), str)
        assert_type(await engine.run(async_flow, 1, y="y"), str)
        assert_type(await engine.run(plain_task, 1), list[int])
        assert_type(await engine.run(async_task, 1), list[int])
        assert_type(engine.start(plain_flow, 1), RunHandle[str])
        assert_type(engine.start(async_flow, 1), RunHandle[str])
        assert_type(await engine.start(async_task, x=1), list[int])
        async with engine.subscribe() as transitions:
            async for transition in transitions:
                assert_type(transition, Transition)
        async with engine.subscribe(5, overflow="drop_oldest") as with_gaps:
            async for item in with_gaps:
                assert_type(item, Transition | Gap)
        async with engine.subscribe(5, "fail") as strict:
            assert_type(await anext(strict), Transition)
        assert_type(engine.statistics().hooks.due, int)
    if engine.shutdown_report is not None:
        assert_type(engine.shutdown_report.drained, int)
    with Engine() as in_sync_code:
        assert_type(in_sync_code, Engine)


# Hooks of every shape, in lists and as decorators, for each kind of transition.


def flow_hook(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None: ...


async def async_hook(flow: Any, flow_run: Any, state: Any) -> str:
    return ""


def task_hook(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> None: ...


def more(task: Any, run: Any, state: Any, x: int = 1, **kwargs: Any) -> None: ...


class HookObject:
    def __call__(self, flow: Any, flow_run: Any, state: Any) -> None: ...

    def method(self, flow: Any, flow_run: Any, state: Any) -> None: ...


@flow(
    on_running=[flow_hook, async_hook],
    on_completion=[partial(more, x=2), HookObject(), HookObject().method],
    on_failure=[Hook(flow_hook, timeout=5, retries=2, on_error="log")],
    on_cancellation=(flow_hook,),
    on_crashed=[lambda flow, flow_run, state: None],
    on_retry=[],
)
def hooked_flow(x: int) -> str:
    return ""


@task(on_running=[task_hook], on_retry=[task_hook, more])
async def hooked_task(x: int) -> str:
    return ""


@hooked_flow.on_completion
def decorated(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> int:
    return 1


@hooked_task.on_crashed
async def decorated_async(task: Any, run: TaskRun, state: State[Any]) -> None: ...


assert_type(hooked_flow(1), str)
# The decorators give back the function they were given.
still_a_function: Callable[[Flow[..., Any], FlowRun, State[Any]], int] = decorated
still_async: Callable[[Any, TaskRun, State[Any]], Coroutine[Any, Any, None]] = (
    decorated_async
)
hooked_flow.on_failure(Hook(flow_hook))
Engine(on_transition=[lambda transition: transition.sequence, Hook(print)])


# Transactions, cached results, and what keeps them.


def undo(transaction: Transaction) -> None: ...


async def undo_async(transaction: Transaction) -> int:
    return 1


def by_x(context: CacheContext, parameters: dict[str, Any]) -> str | None:
    return None if context.flow_run_id is None else str(parameters["x"])


@task(
    on_rollback=[undo, undo_async, lambda transaction: None],
    on_commit=(Hook(undo, timeout=5),),
    cache_policy=INPUTS + TASK_SOURCE - "y" - ["z"],
    cache_expiration=timedelta(hours=1),
    refresh_cache=True,
    persist_result=True,
    result_serializer="pickle",
)
async def kept(x: int, y: str = "", z: str = "") -> list[int]:
    return [x]


@task(cache_key_fn=by_x, cache_policy=None, persist_result=None)
def keyed(x: int) -> int:
    return x


@task(cache_key_fn=task_input_hash)
def hashed(x: int) -> int:
    return x


@kept.on_rollback
def decorated_undo(transaction: Transaction) -> str:
    assert_type(transaction.get("folder"), Any)
    assert_type(transaction.key, str | None)
    return transaction.state.value


@kept.on_commit
async def decorated_commit(transaction: Transaction) -> None: ...


still_an_undo: Callable[[Transaction], str] = decorated_undo
kept.on_commit(Hook(undo))


def transactions() -> None:
    assert_type(keyed(1), int)
    assert_type(keyed.with_options(cache_policy=NO_CACHE)(1), int)
    with transaction() as txn:
        assert_type(txn, Transaction)
        txn.set("folder", 1)
        txn.rollback()
    with transaction("key", "eager", store=MemoryResultStore(), overwrite=True) as txn:
        assert_type(txn.is_committed(), bool)
    with transaction(commit_mode=CommitMode.OFF):
        assert_type(get_transaction(), Transaction | None)
    with use_result_store(MemoryResultStore(limit=5)):
        hashed(1)


async def async_transactions() -> None:
    async with transaction() as txn:
        assert_type(txn, Transaction)
        assert_type(await kept(1), list[int])
        assert_type(kept.submit(1), RunHandle[list[int]])
        await txn.commit()


# Blocks, settings, the client and the runtime.


class Database(Block):
    host: str
    password: SecretStr


@attrs.define(kw_only=True)
class Queue(Block):
    url: SecretStr
    size: int = 5


def blocks() -> None:
    assert_type(String.load("x"), String)
    assert_type(String.load("x").value, str)
    assert_type(Database.load("x").password, SecretStr)
    assert_type(Secret.load("x").get(), str)
    Database(host="h", password="plain text is masked")
    queue = Queue(url=SecretStr("u"))
    queue.save("x", overwrite=True)
    queue.delete("x")
    assert_type(Queue.load("x").size, int)
    SlackWebhook(url="https://example.com").notify("body", subject="subject")
    Webhook(url=SecretStr("https://example.com"), method="PUT").call({"a": 1})
    with use_store(MemoryStore()):
        print(Block.names())


async def async_blocks() -> None:
    assert_type(await String.load("x"), String)
    assert_type((await Database.load("x")).host, str)
    await SlackWebhook(url="https://example.com").notify("body")
    async with get_client() as client:
        found = await client.read_block_document_by_name("x", block_type_slug="string")
        assert_type(found, BlockDocument)
        await client.delete_block_document(found.id)
        assert_type(await client.read_block_documents(), list[BlockDocument])
        run = await client.read_flow_run("id")
        assert_type(run, FlowRun | RunRecord)
        assert_type(run.kind, Literal["flow", "task"])
        runs = await client.read_task_runs(flow_run_id=run.id)
        assert_type(runs, list[TaskRun | RunRecord])
        await client.cancel_flow_run(run.id, reason="why")


def settings() -> None:
    assert_type(get_current_settings().api.url, str | None)
    assert_type(ENGINE_API_URL.value(), str | None)
    with temporary_settings({ENGINE_API_URL: "x"}, home="h") as current:
        assert_type(current, Settings)
        assert_type(current.secret_key, SecretStr | None)


def run_attributes(flow_run: FlowRun, task_run: TaskRun) -> None:
    assert_type(flow_run.empirical_policy.retries, int)
    assert_type(flow_run.parent_task_run_id, str | None)
    assert_type(task_run.task_key, str)
    assert_type(runtime.flow_run.name, Any)
    assert_type(runtime.get_run_context().parameters, dict[str, Any])


# Options replaced: the copy has the signature of the original.


def copies() -> None:
    copy = plain_flow.with_options(name="other", retries=1, on_failure=[flow_hook])
    assert_type(copy(1, y=""), str)
    limited = plain_task.with_options(timeout_seconds=None)
    assert_type(limited.submit(1), RunHandle[list[int]])
    same: Flow[..., str] = hooked_flow.with_options(on_failure=[])
    assert_type(same(1), str)


# Methods, class methods and static methods.


class Shop:
    @flow
    def visit(self, x: int) -> str:
        return ""

    @task(retries=1)
    async def buy(self, x: int) -> int:
        return x

    @staticmethod
    @flow
    def price(x: int) -> float:
        return x


async def methods(shop: Shop) -> None:
    assert_type(shop.visit(1), str)
    assert_type(await shop.buy(1), int)
    assert_type(shop.buy.submit(x=1), RunHandle[int])
    assert_type(Shop.price(1), float)
    assert_type(Shop.visit(shop, 1), str)


# Other callables and generators.


class Adder:
    def __call__(self, a: int, b: int) -> int:
        return a + b


@flow
def counting(n: int) -> Iterator[int]:
    yield from range(n)


add = task(Adder())
assert_type(add(1, 2), int)
assert_type(task(partial(len, [1, 2]))(), int)
assert_type(counting(3), Iterator[int])


# What flows and tasks return by hand, and the wrappers of arguments.


@flow
def chooses(x: int) -> State[int]:
    return Completed(data=x) if x else Failed(message="none")


@task
def takes_anything(x: Any) -> Any:
    return x


def wrappers() -> None:
    takes_anything(quote([1]))
    takes_anything(allow_failure(plain_task.submit(1)))
    with tags("a", "b") as names:
        assert_type(names, frozenset[str])


def covariance(handle: RunHandle[bool], state: State[bool]) -> None:
    general: RunHandle[int] = handle
    general_state: State[object] = state
    general_task: Task[[int], object] = plain_task
    print(general, general_state, general_task)
