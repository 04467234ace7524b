"""Actor-style execution of flows and tasks in async Python, with hooks that hold."""

from typing import TYPE_CHECKING

from engine import runtime
from engine.actors.broadcast import Gap
from engine.context import tags
from engine.fanout import as_completed, wait
from engine.flows import Flow, flow
from engine.handles import RunHandle
from engine.hooks import Hook, HookOutcome
from engine.host import Engine
from engine.logging import get_run_logger
from engine.runs import FlowRun, TaskRun, Transition
from engine.states import State, StateType
from engine.tasks import Task, task
from engine.transactions import transaction
from engine.upstream import allow_failure, opaque, quote, unmapped

__all__ = [
    "Engine",
    "Flow",
    "FlowRun",
    "Gap",
    "Hook",
    "HookOutcome",
    "RunHandle",
    "State",
    "StateType",
    "Task",
    "TaskRun",
    "Transition",
    "allow_failure",
    "as_completed",
    "flow",
    "get_run_logger",
    "opaque",
    "quote",
    "runtime",
    "tags",
    "task",
    "transaction",
    "unmapped",
    "wait",
]

if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        """Look the version up for who asks; nobody else waits for that."""
        if name != "__version__":
            raise AttributeError(f"module 'engine' has no attribute {name!r}")
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("actor-engine")
        except PackageNotFoundError:
            text = "engine has no __version__: it is not installed, only on the path"
            raise AttributeError(text) from None
