"""What all tests share: each async test runs on asyncio and on trio."""

import gc
import signal
import threading
from collections.abc import Iterator

import hypothesis  # noqa: F401 - on import it looks at who refers to what, see below
import pytest

# A shell ignores Ctrl-C for what it starts in the background, and so would the tests,
# which send it, and the processes that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture
def go_on() -> Iterator[threading.Event]:
    """Give what blocked calls wait for, so that none is left when a test fails."""
    event = threading.Event()
    yield event
    event.set()


def pytest_collection_finish() -> None:
    """Leave what pytest keeps of thousands of tests out of every later collection.

    Many tests collect, to see what is left or before they measure; most of their time
    went into walking that.
    """
    gc.collect()
    gc.freeze()
