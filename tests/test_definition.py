"""Definitions: what a flow or task is to code that knows nothing of them."""

import asyncio
import copy
import gc
import inspect
import pickle
import sys
import warnings
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import pytest

from engine import flow, task

ASKS = [asyncio.iscoroutinefunction]
if sys.version_info >= (3, 12):  # there is no mark before that inspect looks at
    ASKS.append(inspect.iscoroutinefunction)

both = pytest.mark.parametrize("decorate", [flow, task])


async def fetch(number: int = 1) -> int:
    return number


def double(number: int = 1) -> int:
    return 2 * number


async def count() -> AsyncIterator[int]:
    yield 1


class Shop:
    """Flows and tasks as methods of each kind."""

    @flow
    async def sell(self) -> None: ...

    @task
    @classmethod
    async def order(cls) -> None: ...

    @task
    @staticmethod
    async def pay() -> None: ...

    @flow
    def close(self) -> None: ...

    def __init__(self, price: int = 1) -> None:
        self.price = price

    @task
    def cost(self, number: int) -> int:
        return self.price * number


@task
def triple(number: int) -> int:
    return 3 * number


@flow
async def hexadecimal(number: int) -> str:
    return hex(number)


@pytest.mark.parametrize("asks", ASKS)
class TestBeingTakenForACoroutineFunction:
    @both
    def test_what_is_to_be_awaited_says_so(self, asks: Any, decorate: Any) -> None:
        """Frameworks ask before they call, and run what is not async in a thread."""
        assert asks(decorate(fetch))
        assert asks(decorate(retries=1)(fetch))
        assert asks(decorate(fetch).with_options(name="other"))
        assert asks(decorate(count))
        assert asks(decorate(partial(fetch, 2)))

    @both
    def test_what_gives_its_value_does_not(self, asks: Any, decorate: Any) -> None:
        """A sync flow or task is no coroutine function, whatever it was made after."""
        assert not asks(decorate(double))
        assert not asks(decorate(partial(double, 2)))

    def test_methods_are_asked_alike(self, asks: Any) -> None:
        """A method says on its class and on an instance what it is."""
        for owner in (Shop, Shop()):
            assert all(map(asks, (owner.sell, owner.order, owner.pay)))
            assert not asks(owner.close)
            assert asks(owner.sell.with_options(retries=1))


def test_a_framework_runs_an_async_flow_in_the_background() -> None:
    """FastAPI's background tasks await what they were given."""
    from fastapi import BackgroundTasks, FastAPI
    from fastapi.testclient import TestClient

    ran: list[int] = []

    @flow
    async def mark(number: int) -> None:
        ran.append(number)

    app = FastAPI()

    @app.get("/")
    async def answer(tasks: BackgroundTasks) -> None:
        tasks.add_task(mark, 3)

    with TestClient(app) as client:
        client.get("/")
    assert ran == [3]


@both
def test_a_forgotten_await_is_warned_about_by_name(decorate: Any) -> None:
    """Python names the coroutine, of which this library would have but one."""
    made = decorate(name="get page")(fetch)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made(1)
        gc.collect()
    assert [str(warning.message) for warning in caught] == [
        "coroutine 'get page' was never awaited"
    ]


class TestPickling:
    @pytest.mark.parametrize(
        "made", [triple, hexadecimal, Shop.cost, Shop.pay], ids=str
    )
    def test_what_is_decorated_in_a_module_comes_back_itself(self, made: Any) -> None:
        """It is pickled as a function is: as its name."""
        assert pickle.loads(pickle.dumps(made)) is made

    def test_methods_bring_what_they_are_bound_to(self) -> None:
        """As those of Python do."""
        cost = pickle.loads(pickle.dumps(Shop(7).cost))
        assert cost(2) == 14
        assert pickle.loads(pickle.dumps(Shop(7).order)).bound_to is Shop

    def test_a_process_can_be_given_one(self) -> None:
        """Also one that has to import it first."""
        context = get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as processes:
            assert list(processes.map(triple, [1, 2])) == [3, 6]

    @both
    def test_what_has_no_name_is_refused(self, decorate: Any) -> None:
        """Rather than that another one comes back."""
        of_a_copy = "test_definition.triple does not lead to it"
        for made, text in (
            (triple.with_options(retries=1), of_a_copy),
            (Shop().cost.with_options(retries=1), "Shop.cost does not lead to it"),
            (decorate(lambda: None), "<lambda> does not lead to it"),
            (decorate(partial(double, 1)), "its function's name does not lead to it"),
            (decorate(double), "test_definition.double does not lead to it"),
        ):
            with pytest.raises(pickle.PicklingError, match=text):
                pickle.dumps(made)

    @both
    def test_only_what_it_is_bound_to_is_copied(self, decorate: Any) -> None:
        """A flow or task is one thing, like a function, also where it has no name."""
        made = decorate(lambda: None)
        assert copy.copy(made) is made
        assert copy.deepcopy([made]) == [made]
        shop = Shop(7)
        copied = copy.deepcopy({"shop": shop, "cost": shop.cost, "of": shop.order})
        assert copied["cost"].bound_to is copied["shop"]
        assert copied["cost"](2) == 14
        assert copied["of"].bound_to is Shop
