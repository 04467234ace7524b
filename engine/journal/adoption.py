"""What the next owner of a journal does with the runs of processes that are gone.

They become Crashed with cause ``process_lost``, children before parents, in one
transaction. Nothing is imported for that: what a crash owes was written down when the
flow or task first ran.
"""

from __future__ import annotations

import json
from typing import Any, Final

TEXT: Final = "The process that ran it was lost."

LIVE: Final = (
    "SELECT runs.run, definitions.crash_hooks, owners.hooks,"
    " owners.boot, last.sequence, last.attempt, last.entered_at"
    " FROM runs JOIN definitions USING (definition) JOIN owners USING (owner)"
    " JOIN transitions AS last ON last.run = runs.run AND last.sequence ="
    " (SELECT max(sequence) FROM transitions WHERE transitions.run = runs.run)"
    " WHERE runs.ended_at IS NULL ORDER BY runs.run DESC"
)
"""Runs without an end. A child is younger than its parent: youngest first will do."""

QUARANTINE: Final = (
    "UPDATE hooks SET fate = 'quarantined' WHERE fate = 'owed' AND recoveries >= ?"
)


def adopt(db: Any, now: float, clock: float, boot: str | None, most: int) -> int:
    """Move live runs to Crashed, owing their hooks; return how many they were.

    Args:
        db: A connection inside of a transaction.
        now: Seconds since 1970.
        clock: The monotonic clock, which goes on from process to process, though not
            from boot to boot.
        boot: This boot's identity.
        most: How many recoveries may fail on one hook.
    """
    db.execute(QUARANTINE, (most,))
    lost = db.execute(LIVE).fetchall()
    # Above every sequence number of theirs, so that the order of these steps shows.
    sequence = max((row[4] for row in lost), default=0)
    for run, crash_hooks, own_hooks, ran_in, _, attempt, at in lost:
        sequence += 1
        same_boot = boot is not None and boot == ran_in
        died_at = clock if same_boot else None
        db.execute(
            "INSERT INTO transitions VALUES"
            " (?, ?, 'CRASHED', 'Crashed', ?, 'process_lost', ?, ?, ?)",
            (run, sequence, TEXT, attempt, max(now, at + 1e-6), died_at),
        )
        db.execute("UPDATE runs SET ended_at = ? WHERE run = ?", (now, run))
        owed = json.loads(own_hooks) + json.loads(crash_hooks)
        for position, (kind, name, *rest) in enumerate(owed):
            db.execute(
                "INSERT INTO hooks (run, sequence, position, kind, hook, target,"
                " timeout, retries) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (run, sequence, position, kind, f"{kind}[{position}]:{name}", *rest),
            )
    return len(lost)
