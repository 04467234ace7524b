"""Actor-style execution of flows and tasks in async Python, with hooks that hold."""

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
