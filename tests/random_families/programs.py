"""The parts of a program, which print as what makes them."""

from __future__ import annotations

from typing import Any

import attrs


class Part:
    """A part of a program, which shows what is special about it."""

    def __repr__(self) -> str:
        values = {f: getattr(self, f.name) for f in attrs.fields(type(self))}
        special = [f"{f.name}={v!r}" for f, v in values.items() if v != f.default]
        return f"{type(self).__name__}({', '.join(special)})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show as much in the examples that hypothesis prints."""
        printer.text(repr(self))


@attrs.frozen(repr=False)
class Sleep(Part):
    """A step of a body: to wait for a time.

    Attributes:
        seconds: How long.
        how: ``plain``; ``shielded`` from cancellations; or to ``swallow`` one.
    """

    seconds: float
    how: str = "plain"


@attrs.frozen(repr=False)
class Join(Part):
    """A step of a body: to wait for the children that it has handles of.

    Attributes:
        catch: Whether it goes on when one of them has failed.
    """

    catch: bool = True


@attrs.frozen(repr=False)
class Stop(Part):
    """A step of a body: to cancel a run.

    Attributes:
        which: Which of the children that it has handles of; itself if it is -1.
    """

    which: int


@attrs.frozen(repr=False)
class Child(Part):
    """A step of a body, or a run at the top: to have a run made.

    Attributes:
        plan: What it does.
        how: ``call`` it, ``run`` or ``start`` it with the engine, ``submit`` it, or
            ``map`` or ``stream`` some of it.
        within: Seconds until the scope around that is cancelled; None if there is none.
        after: Whether it depends on those that there are handles of.
        catch: Whether the body goes on when this raises.
    """

    plan: Plan
    how: str = "call"
    within: float | None = None
    after: bool = False
    catch: bool = True


@attrs.frozen(repr=False)
class Plan(Part):
    """What a run does.

    Attributes:
        name: The name of its flow or task, which no other plan has.
        kind: ``flow`` or ``task``.
        is_sync: Whether its body is a plain function.
        steps: What its body does in each attempt.
        fails: How many of the first attempts fail after that.
        end: How the others end: with a ``value``, an ``error``, an ``abort``, which is
            no ordinary exception, or a ``stray`` cancellation.
        retries: How often it may be tried again.
        delay: Seconds until it is.
        timeout: Seconds for one attempt; None is no limit.
        hooks: Kinds of hooks, and what each hook does: it is ``sync``, or it is async
            and does ``well``, ``fails``, ``dies``, ``hangs`` or ``cancels`` the run.
    """

    name: str
    kind: str = "task"
    is_sync: bool = False
    steps: tuple[Part, ...] = ()
    fails: int = 0
    end: str = "value"
    retries: int = 0
    delay: float = 0
    timeout: float | None = None
    hooks: tuple[tuple[str, str], ...] = ()


@attrs.frozen(repr=False)
class Act(Part):
    """What is done from outside.

    Attributes:
        what: ``cancel`` a run through its handle, or the ``host`` of one at the top;
            ``leave`` the engine's block, or ``raise`` in it.
        at: Seconds until it is done.
        turns: How many turns of the loop later.
        which: The number of the run, or of the host.
    """

    what: str
    at: float = 0
    turns: int = 0
    which: int = 0


@attrs.frozen(repr=False)
class Program(Part):
    """A whole program.

    Attributes:
        roots: The runs at the top.
        acts: What is done from outside.
        limit: How many runs may be executed at once; None is no limit.
        hooks_at_once: How many runs may have their hooks called at once.
        runs_a_turn: How many runs begin, or are interrupted, in one turn of the loop.
        has_threads: Whether sync bodies and hooks are executed in threads; then it is
            performed in real time, and nothing in it takes any.
    """

    roots: tuple[Child, ...]
    acts: tuple[Act, ...] = ()
    limit: int | None = None
    hooks_at_once: int = 100
    runs_a_turn: int = 64
    has_threads: bool = False
