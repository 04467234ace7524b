"""The author of random programs, as a strategy of hypothesis."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Final

import attrs
from hypothesis import strategies as st
from support import HOOKS

from .programs import Act, Child, Join, Part, Plan, Program, Sleep, Stop

DEPTH: Final = 3
"""How many generations there are below the runs at the top, at most."""

Ways = list[tuple[str, str]]
"""How runs are made, and where their bodies are executed: on the ``loop``; in a
``thread``; or ``held``, by a sync call on the loop, which stands still meanwhile."""

AT_THE_TOP: Final[Ways] = [("call", "loop"), ("run", "loop"), ("start", "loop")]
HELD: Final[Ways] = [("call", "held")]
IN_THREADS: Final[Ways] = [("run", "thread"), ("start", "thread")]
WAYS: Final[dict[str, Ways]] = {
    "loop": [
        *((how, "loop") for how in ("call", "run", "submit", "map", "stream", "start")),
        *HELD,
    ],
    "held": HELD,
    "thread": [("call", "thread"), ("submit", "thread"), ("map", "loop")],
}
"""By where the body is executed that makes them."""

ACTS: Final = (*["cancel"] * 4, *["host"] * 2, "leave", "raise")


@attrs.frozen
class Author:
    """Writes a program: in virtual time, or with threads, and then no time passes."""

    draw: st.DrawFn
    has_threads: bool
    numbers: Iterator[int] = attrs.field(factory=itertools.count)

    def one(self, *values: Any) -> Any:
        """Choose one of some values."""
        return self.draw(st.sampled_from(values))

    def many(self, *values: Any, most: int, least: int = 0) -> Any:
        """Choose some values, with repetitions."""
        each = st.sampled_from(values)
        return self.draw(st.lists(each, min_size=least, max_size=most))

    def time(self, *seconds: float | None) -> Any:
        """Choose one of these times, of which the first is none."""
        return seconds[0] if self.has_threads else self.one(*seconds)

    def program(self) -> Program:
        """Write the whole."""
        ways = AT_THE_TOP + (IN_THREADS if self.has_threads else HELD)
        return Program(
            roots=tuple(
                self.child(way, DEPTH) for way in self.many(*ways, most=2, least=1)
            ),
            acts=tuple(self.act(what) for what in self.many(*ACTS, most=4)),
            limit=None if self.has_threads else self.one(None, None, 1, 2),
            hooks_at_once=self.one(100, 1),
            runs_a_turn=self.one(64, 1),
            has_threads=self.has_threads,
        )

    def act(self, what: str) -> Act:
        """Write what is done from outside."""
        turns = self.one(*range(40 if self.has_threads else 6))
        return Act(what, self.time(0, 0.5, 1, 2), turns, self.one(*range(9)))

    def child(self, way: tuple[str, str], depth: int) -> Child:
        """Write a run, and how it is made."""
        how, place = way
        on_loop = place == "loop"
        kinds = ["task"] if how in ("submit", "map", "stream") else ["task", "flow"]
        may_depend = on_loop and how in ("call", "submit", "map")
        return Child(
            plan=self.plan(self.one(*kinds), place, depth),
            how=how,
            within=self.time(None, None, None, 0.5, 1) if on_loop else None,
            after=may_depend and self.one(False, True),
            catch=self.one(True, False),
        )

    def plan(self, kind: str, place: str, depth: int) -> Plan:
        """Write what a run does whose body is executed at a place."""
        on_loop = place == "loop"
        return Plan(
            name=f"r{next(self.numbers)}",
            kind=kind,
            is_sync=not on_loop,
            steps=self.steps(place, depth),
            fails=self.one(0, 0, 0, 1, 2),
            end=self.one("value", "value", "error", "abort", *["stray"] * on_loop),
            retries=self.one(0, 0, 1, 2),
            delay=self.time(0, 1) if on_loop else 0,
            timeout=self.time(None, None, None, 1, 2) if on_loop else None,
            hooks=self.hooks(on_loop),
        )

    def hooks(self, on_loop: bool) -> tuple[tuple[str, str], ...]:
        """Write the hooks of a run: some at random, or else one of every kind."""
        hows = ["well", "fails", "dies", "cancels"] if on_loop else ["sync"]
        hows += ["sync"] if self.has_threads else ["hangs"] * on_loop
        some = [(self.one(*HOOKS), how) for how in self.many(*hows, most=4)]
        return tuple(some or ((kind, hows[0]) for kind in HOOKS))

    def steps(self, place: str, depth: int) -> tuple[Part, ...]:
        """Write what a body does."""
        on_loop = place == "loop"
        whats = ["join", "stop"] + ["child"] * (3 if depth else 0) + ["sleep"] * on_loop
        return tuple(self.step(w, place, depth) for w in self.many(*whats, most=3))

    def step(self, what: str, place: str, depth: int) -> Part:
        """Write one step of a body."""
        if what == "sleep":
            how = self.one("plain", "shielded", "swallow")
            return Sleep(self.time(0, 0.5, 1, 2), how)
        if what == "join":
            return Join(self.one(True, False))
        if what == "stop":
            return Stop(self.one(0, 1, -1))
        in_threads = [*IN_THREADS, ("submit", "thread")]
        more = in_threads if self.has_threads and place == "loop" else []
        return self.child(self.one(*WAYS[place], *more), depth - 1)


@st.composite
def programs(draw: st.DrawFn, has_threads: bool) -> Program:
    return Author(draw, has_threads).program()
