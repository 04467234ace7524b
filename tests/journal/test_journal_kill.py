"""SIGKILL at random times: nothing owed is lost, and nobody was lied to.

``ENGINE_TEST_KILLS`` sets how many: 40 unless told otherwise, 1,000 in ``make kills``
and so in ``make test``; 10,000 take twenty minutes.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from journal_history import Nursery, Verdict, check_file

KILLS = int(os.environ.get("ENGINE_TEST_KILLS", "40"))
LONGEST = 0.08
"""Seconds from a process's entering to its end, at most."""

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the workers are forked"),
    pytest.mark.timeout(60 + KILLS),
]


@pytest.mark.parametrize("supervised", [False, True], ids=["restart", "supervisor"])
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_nothing_owed_is_lost_to_kills(
    loop: str, supervised: bool, tmp_path: Path
) -> None:
    """Every hook owed is delivered, in order, at most once more per kill and run."""
    journal = tmp_path / "journal.db"
    chance = random.Random(f"{loop}{supervised}{os.environ.get('ENGINE_TEST_SEED', 0)}")
    with Nursery() as nursery:
        for _ in range(max(1, KILLS // 4)):
            pid = nursery.start("work", loop, journal)
            kill_after(nursery, pid, chance)
            if supervised:
                recovery = nursery.start("recover", loop, journal)
                if chance.random() < 0.5:
                    assert nursery.wait_for_end(recovery) == 0, nursery.errors
                else:
                    kill_after(nursery, recovery, chance, entered=False)
        last = nursery.start("recover", loop, journal)
        assert nursery.wait_for_end(last) == 0, "".join(nursery.errors[-30:])
        verdict = Verdict(nursery.lines)
    print(
        f"{verdict.runs} runs, {verdict.deliveries} deliveries,"
        f" {verdict.repeats} repeats, {len(verdict.lost)} lost"
    )
    verdict.check()
    check_file(journal)


def kill_after(
    nursery: Nursery, pid: int, chance: random.Random, *, entered: bool = True
) -> None:
    """Kill a process at a random time after it has entered its engine."""
    if entered:
        nursery.wait_for("entered", pid)
    # The one place where real time has to pass: the instant of the kill is the input.
    time.sleep(chance.random() * LONGEST)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    nursery.wait_for_end(pid)
