"""The loss of power: ``full`` loses nothing that was acknowledged, and never breaks.

``ENGINE_TEST_CUTS`` sets how often the power is cut (default 300).
"""

from __future__ import annotations

import os
import random
import sqlite3
from pathlib import Path

import pytest
from journal_power import STEPS_OF_A_RUN, Disk, record

CUTS = int(os.environ.get("ENGINE_TEST_CUTS", "300"))
BATCHES = 60

pytestmark = pytest.mark.timeout(60 + CUTS // 50)


class Damage:
    """What the cuts did."""

    def __init__(self) -> None:
        self.lost = self.broken = self.torn = self.cuts = 0


def cut_power(folder: Path, durability: str, cuts: int) -> Damage:
    """Write a journal, cut the power *cuts* times, and look at what is left."""
    (folder / "written").mkdir()
    (folder / "found").mkdir()
    ops = record(folder / "written", durability, BATCHES, f"recording-{durability}")
    chance = random.Random(os.environ.get("ENGINE_TEST_SEED", "power"))
    first = next(i for i, op in enumerate(ops) if op[0] == "ack")
    instants = sorted(chance.randrange(first, len(ops)) for _ in range(cuts))
    disk, damage, done = Disk(), Damage(), 0
    for instant in instants:
        for op in ops[done:instant]:
            disk.apply(op)
        done = instant
        look(folder / "found", disk, chance, damage)
    return damage


def look(folder: Path, disk: Disk, chance: random.Random, damage: Damage) -> None:
    """Put down the files as they may be found, and judge them."""
    damage.cuts += 1
    for old in folder.iterdir():
        old.unlink()
    for name, content in disk.after_power_loss(chance).items():
        (folder / name).write_bytes(content)
    db = sqlite3.connect(folder / "journal.db")
    try:
        if db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            damage.broken += 1
            return
        runs = {run for (run,) in db.execute("SELECT run FROM runs")}
        steps = db.execute("SELECT count(*) FROM transitions").fetchone()[0]
    except sqlite3.DatabaseError:
        damage.broken += 1
        return
    finally:
        db.close()
    if not set(range(1, disk.acknowledged + 1)) <= runs:
        damage.lost += 1
    if steps != len(runs) * STEPS_OF_A_RUN:
        damage.torn += 1


def test_full_loses_nothing(tmp_path: Path) -> None:
    """With ``full`` every acknowledged run is there, whole, after any cut."""
    damage = cut_power(tmp_path, "full", CUTS)
    print(f"full: {vars(damage)}")
    assert damage.cuts == CUTS
    assert (damage.lost, damage.broken, damage.torn) == (0, 0, 0)


def test_normal_loses_the_end(tmp_path: Path) -> None:
    """With ``normal`` the same cuts lose acknowledged runs: the test can tell."""
    damage = cut_power(tmp_path, "normal", max(100, CUTS // 10))
    print(f"normal: {vars(damage)}")
    assert damage.lost > 0
    assert damage.broken == 0


def test_off_breaks_the_file(tmp_path: Path) -> None:
    """With ``off`` they break the file too."""
    damage = cut_power(tmp_path, "off", max(100, CUTS // 10))
    print(f"off: {vars(damage)}")
    assert damage.lost + damage.broken > 0
