"""Wrong calls, which type checkers have to refuse. Not run.

Both checkers report an ignore comment that they do not need, so each line here fails
the check as soon as one of them finds nothing wrong with it any more.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import Any

import attrs

from engine import (
    Engine,
    Flow,
    Hook,
    RunHandle,
    State,
    Task,
    flow,
    tags,
    task,
    transaction,
    wait,
)
from engine.blocks import Block, SecretStr
from engine.blocks.notifications import Webhook
from engine.blocks.system import String
from engine.cache_policies import INPUTS
from engine.settings import get_current_settings, temporary_settings
from engine.states import Failed
from engine.transactions import Transaction


@flow
def plain_flow(x: int, y: str = "") -> str:
    return y * x


@flow
async def async_flow(x: int) -> str:
    return ""


@task
def plain_task(x: int) -> list[int]:
    return [x]


@task
async def async_task(x: int) -> list[int]:
    return [x]


def hook(definition: Any, run: Any, state: State[Any]) -> None: ...


def wrong_arguments() -> None:
    plain_flow()  # type: ignore[call-overload]
    plain_flow("1")  # type: ignore[call-overload]
    plain_flow(1, 2)  # type: ignore[call-overload]
    plain_flow(1, z="")  # type: ignore[call-overload]
    plain_task(1, 2)  # type: ignore[call-overload]
    plain_task.submit()  # type: ignore[call-overload]
    plain_task.submit("1")  # type: ignore[call-overload]
    plain_task.submit(1, 2)  # type: ignore[call-overload]
    async_task.submit(y=1)  # type: ignore[call-overload]
    plain_flow(1, return_state=1)  # type: ignore[call-overload]


async def wrong_results(engine: Engine) -> None:
    number: int = plain_flow(1)  # type: ignore[assignment]
    text: str = plain_flow(1, return_state=True)  # type: ignore[assignment]
    handle: RunHandle[str] = plain_task.submit(1)  # type: ignore[assignment]
    values: list[str] = await async_task(1)  # type: ignore[assignment]
    not_awaited: str = async_flow(1)  # type: ignore[assignment]
    state: State[int] = await async_flow(1, return_state=True)  # type: ignore[assignment]
    results: list[int] = plain_task.map([1]).result()  # type: ignore[assignment]
    ran: int = await engine.run(plain_flow, 1)  # type: ignore[call-overload]
    await plain_flow(1)  # type: ignore[misc]
    print(number, text, handle, values, not_awaited, state, results, ran)


async def wrong_calls_of_an_engine(engine: Engine) -> None:
    await engine.run(plain_flow)  # type: ignore[call-overload]
    await engine.run(async_flow, "1")  # type: ignore[call-overload]
    await engine.run(len, [])  # type: ignore[call-overload]
    engine.start(plain_flow, 1, 2)  # type: ignore[call-overload]
    engine.start(async_task, y=1)  # type: ignore[call-overload]
    engine.start(plain_flow(1))  # type: ignore[call-overload]
    engine.subscribe(overflow="drop")  # type: ignore[call-overload]
    Engine(max_concurrency="5")  # type: ignore[arg-type]
    Engine(max_concurency=5)  # type: ignore[call-arg]
    Engine(on_transition=[lambda: None])  # type: ignore[list-item, misc]


def what_flows_do_not_have() -> None:
    plain_flow.submit(1)  # type: ignore[attr-defined]
    plain_flow.map([1])  # type: ignore[attr-defined]
    plain_task.result()  # type: ignore[attr-defined]


def wrong_options() -> None:
    flow(retrys=1)  # type: ignore[call-overload]
    flow(task_run_name="x")  # type: ignore[call-overload]
    flow(retries="1")  # type: ignore[call-overload]
    flow(timeout_seconds="5")  # type: ignore[call-overload]
    flow(on_failure=hook)  # type: ignore[call-overload]
    flow(on_failure=["hook"])  # type: ignore[list-item]
    flow(on_failure=[lambda: None])  # type: ignore[list-item, misc]
    flow(on_failure=[lambda flow, run: None])  # type: ignore[list-item, misc]
    flow(retry_condition_fn=lambda state: True)  # type: ignore[arg-type, misc]
    task(version="1")  # type: ignore[call-overload]
    task(validate_parameters=True)  # type: ignore[call-overload]
    task(retry_delay_seconds="10")  # type: ignore[arg-type]
    task(tags=5)  # type: ignore[call-overload]
    flow("name")  # type: ignore[call-overload]
    task(5)  # type: ignore[call-overload]
    plain_flow.with_options(retrys=1)  # type: ignore[call-arg]
    plain_flow.with_options(task_run_name="x")  # type: ignore[call-arg]
    plain_task.with_options(flow_run_name="x")  # type: ignore[call-arg]
    plain_task.on_failure("hook")  # type: ignore[type-var]
    plain_task.on_failure(lambda: None)  # type: ignore[type-var]
    plain_task.on_rollback_of(hook)  # type: ignore[attr-defined]
    Hook("hook")  # type: ignore[arg-type]
    Hook(hook, timeout="5")  # type: ignore[arg-type]
    Hook(hook, on_error="raise")  # type: ignore[arg-type]


def undo(transaction: Transaction) -> None: ...


def wrong_caching() -> None:
    task(cache_policy="inputs")  # type: ignore[call-overload]
    task(cache_key_fn="key")  # type: ignore[call-overload]
    task(cache_key_fn=lambda context, parameters: 1)  # type: ignore[arg-type, return-value]
    task(cache_expiration=5)  # type: ignore[call-overload]
    task(refresh_cache="yes")  # type: ignore[call-overload]
    task(persist_result=1)  # type: ignore[call-overload]
    task(result_serializer="yaml")  # type: ignore[call-overload]
    flow(cache_policy=INPUTS)  # type: ignore[call-overload]
    flow(persist_result=True)  # type: ignore[call-overload]
    print(INPUTS + "x")  # type: ignore[operator]
    print(INPUTS - 1)  # type: ignore[operator]


def wrong_transactions() -> None:
    task(on_rollback=undo)  # type: ignore[call-overload]
    task(on_rollback=[hook])  # type: ignore[list-item]
    task(on_commit=[lambda: None])  # type: ignore[list-item, misc]
    flow(on_rollback=[undo])  # type: ignore[call-overload]
    plain_flow.on_rollback(undo)  # type: ignore[attr-defined]
    plain_task.on_rollback(hook)  # type: ignore[type-var]
    plain_task.on_commit("undo")  # type: ignore[type-var]
    plain_task.on_failure(undo)  # type: ignore[type-var]
    transaction(5)  # type: ignore[arg-type]
    transaction(commit_mode="late")  # type: ignore[arg-type]
    with transaction() as txn:
        txn.set("x")  # type: ignore[call-arg]
        txn.get()  # type: ignore[call-arg]


@attrs.define(kw_only=True)
class Queue(Block):
    url: SecretStr
    size: int = 5


async def wrong_blocks() -> None:
    Queue(url=SecretStr("u"), length=5)  # type: ignore[call-arg]
    Queue(SecretStr("u"))  # type: ignore[call-arg]
    Queue.load(1)  # type: ignore[arg-type]
    Queue(url=SecretStr("u")).save()  # type: ignore[call-arg]
    size: str = Queue.load("x").size  # type: ignore[assignment]
    queue: String = Queue.load("x")  # type: ignore[assignment]
    Webhook(url="https://example.com", method="SEND")  # type: ignore[arg-type]
    url: str = get_current_settings().api.url  # type: ignore[assignment]
    temporary_settings("api_url")  # type: ignore[arg-type]
    print(size, queue, url)


def wrong_fan_out() -> None:
    plain_task.stream(5)  # type: ignore[arg-type]
    plain_task.stream([1], limit="5")  # type: ignore[arg-type]
    plain_task.stream([1], on_error="stop")  # type: ignore[arg-type]
    wait([1])  # type: ignore[list-item]
    tags(1)  # type: ignore[arg-type]
    Failed("message")  # type: ignore[call-arg]


class Shop:
    @flow
    def visit(self, x: int) -> str:
        return ""


def wrong_methods(shop: Shop) -> None:
    shop.visit("1")  # type: ignore[call-overload]
    shop.visit()  # type: ignore[call-overload]
    number: int = shop.visit(1)  # type: ignore[assignment]
    Shop.visit(1)  # type: ignore[call-overload]
    print(number)


def invariance(handle: RunHandle[int], made: Flow[[int], str]) -> None:
    narrowed: RunHandle[bool] = handle  # type: ignore[assignment]
    other: Task[[int], str] = made  # type: ignore[assignment]
    fewer: Flow[[], str] = made  # type: ignore[assignment]
    print(narrowed, other, fewer)
