"""Random families of runs end well, whatever they do and is done to them.

Some are always performed in virtual time, the same ones each time. Real threads are for
``ENGINE_TESTS_LARGE=1``, and with it many more of both kinds, which are others each
time; ``--hypothesis-seed`` has the same ones again.
"""

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from random_families.author import programs
from random_families.performance import perform
from random_families.programs import Program

from engine.testing.clock import Backend

LARGE = "ENGINE_TESTS_LARGE" in os.environ
EXAMPLES = 2000 if LARGE else 100
PATIENCE = 120 if LARGE else 8
"""Seconds until a program is said to hang, which takes some hundredths otherwise."""

pytestmark = [
    pytest.mark.parametrize("backend", ["asyncio", "trio"]),
    pytest.mark.timeout(1200 if LARGE else 120),
]


def examples(test: Any) -> Any:
    """Perform a test with many programs, which may take their time."""
    return settings(
        max_examples=EXAMPLES,
        derandomize=not LARGE,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )(test)


def check(program: Program, backend: Backend) -> None:
    """Perform a program, and show it when something is wrong."""
    wrong = perform(program, backend, PATIENCE)
    assert not wrong, "\n".join([*wrong, f"in {program}"])


@examples
@given(program=programs(has_threads=False))
def test_on_a_loop_at_any_time(backend: Backend, program: Program) -> None:
    """Whatever is done when, no rule is broken."""
    check(program, backend)


@pytest.fixture
def restless() -> Iterator[None]:
    """Have threads take turns much more often than they would."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.skipif(not LARGE, reason="ENGINE_TESTS_LARGE=1 asks for it")
@pytest.mark.usefixtures("restless")
@examples
@given(program=programs(has_threads=True))
def test_with_sync_bodies_and_hooks_in_threads(
    backend: Backend, program: Program
) -> None:
    """Whatever the threads do meanwhile, no rule is broken."""
    check(program, backend)
