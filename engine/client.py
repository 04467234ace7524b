"""A client: saved blocks, and the runs of the current engine, by name or identity.

    async with get_client() as client:
        document = await client.read_block_document_by_name("alerts", "slack-webhook")

It works in this process: on the store of blocks that is in force, and on the engine
that a call of a flow would use here.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Self, TypeGuard
from uuid import UUID

import attrs

from engine.blocks._bridge import in_thread
from engine.blocks.document import (
    BlockDocument,
    delete_document,
    read_document_by_name,
    read_documents,
)
from engine.blocks.exceptions import BlockNotFoundError
from engine.calls import engine_and_parent
from engine.exceptions import EngineError, NoEngineError
from engine.runs import FlowRun, RunRecord, TaskRun

if TYPE_CHECKING:
    from types import TracebackType

    from engine.host import Engine
    from engine.states import StateType

__all__ = ["BlockDocument", "EngineClient", "ObjectNotFound", "get_client"]

AnyRun = FlowRun | TaskRun | RunRecord


@attrs.define(eq=False)
class ObjectNotFound(EngineError, LookupError):
    """What a client was asked for does not exist.

    Attributes:
        kind: What it would be, such as ``flow run``.
        identity: Its name or identity.
    """

    kind: str
    identity: str

    def __str__(self) -> str:
        return f"there is no {self.kind} {self.identity!r}"


def get_client() -> EngineClient:
    """Return a client, to be entered with ``async with`` on asyncio or trio."""
    return EngineClient()


class EngineClient:
    """Reads and changes what is known of blocks and runs; made by `get_client`."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing is open: there is no server to be connected to."""

    async def read_block_document_by_name(
        self, name: str, block_type_slug: str, *, include_secrets: bool = False
    ) -> BlockDocument:
        """Return a block without making an object of its class.

        Args:
            name: The block's name.
            block_type_slug: Its type's slug, such as ``slack-webhook``.
            include_secrets: Whether to decrypt its secrets; they stay `SecretStr`.

        Raises:
            ObjectNotFound: There is no such block.
            BlockNameError: One of the two is no name.
            BlockError: It cannot be read.
        """
        try:
            return await in_thread(
                partial(
                    read_document_by_name,
                    name,
                    block_type_slug,
                    include_secrets=include_secrets,
                )
            )
        except BlockNotFoundError:
            identity = f"{block_type_slug}/{name}"
        raise ObjectNotFound("block document", identity)

    async def read_block_documents(
        self, block_type_slug: str | None = None, *, include_secrets: bool = False
    ) -> list[BlockDocument]:
        """Return all blocks, or those of one type, by type and name.

        Args:
            block_type_slug: The type; None is every type.
            include_secrets: As in `read_block_document_by_name`.

        Raises:
            BlockError: One of them cannot be read; the error names it.
        """
        return await in_thread(
            partial(read_documents, block_type_slug, include_secrets=include_secrets)
        )

    async def delete_block_document(self, block_document_id: UUID | str) -> None:
        """Remove a block.

        Raises:
            ObjectNotFound: There is none with this id.
            BlockStoreError: The store cannot be used.
        """
        block_id = as_uuid(block_document_id)
        if block_id is None or not await in_thread(partial(delete_document, block_id)):
            raise ObjectNotFound("block document", str(block_document_id))

    async def read_flow_run(self, flow_run_id: str) -> FlowRun | RunRecord:
        """Return a flow run that is live, or the record of one that has ended.

        Raises:
            ObjectNotFound: The engine knows none with this id, any more or at all.
            NoEngineError: There is no engine.
        """
        for run in engine_for("read_flow_run").runs():
            if run.id == flow_run_id and is_of_flow(run):
                return run
        raise ObjectNotFound("flow run", flow_run_id)

    async def read_task_runs(
        self,
        *,
        flow_run_id: str | None = None,
        name: str | None = None,
        state_type: StateType | str | None = None,
    ) -> list[TaskRun | RunRecord]:
        """Return the task runs that are live, then the records of those that ended.

        Args:
            flow_run_id: Only those whose nearest flow run this is; None is all.
            name: Only those of the task with this name; None is all.
            state_type: Only those in a state of this type; None is all.

        Raises:
            NoEngineError: There is no engine.
            ValueError: *state_type* is no type of state.
        """
        engine = engine_for("read_task_runs")
        known = {run.id: run for run in engine.runs()}
        return [
            run
            for run in engine.runs(name=name, state_type=state_type)
            if is_of_task(run) and flow_run_id in (None, nearest_flow(run, known))
        ]

    async def cancel_flow_run(
        self, flow_run_id: str, reason: str | None = None
    ) -> None:
        """Ask a flow run to stop; one that has ended is left as it is.

        Returns at once, see `RunHandle.cancel`.

        Args:
            flow_run_id: The run.
            reason: A sentence for the state's message; None takes a default one.

        Raises:
            ObjectNotFound: The engine knows none with this id, any more or at all.
            NoEngineError: There is no engine.
        """
        for handle in engine_for("cancel_flow_run").handles():
            if handle.id == flow_run_id and isinstance(handle.run, FlowRun):
                handle.cancel(reason)
                return
        await self.read_flow_run(flow_run_id)


def engine_for(call: str) -> Engine:
    """Return the engine that a flow called here would run in.

    Raises:
        NoEngineError: There is none.
    """
    engine, _ = engine_and_parent()
    if engine is None:
        raise NoEngineError(f"client.{call}()")
    return engine


def is_of_flow(run: AnyRun) -> TypeGuard[FlowRun | RunRecord]:
    """Whether a run, live or ended, is one of a flow."""
    return run.kind == "flow"


def is_of_task(run: AnyRun) -> TypeGuard[TaskRun | RunRecord]:
    """Whether a run, live or ended, is one of a task."""
    return run.kind == "task"


def nearest_flow(run: AnyRun, known: dict[str, AnyRun]) -> str | None:
    """Return the flow run that a task's run is a part of; None outside of flows."""
    above = run.parent_run_id
    while above is not None and above in known and is_of_task(known[above]):
        above = known[above].parent_run_id
    return above


def as_uuid(given: UUID | str) -> UUID | None:
    """Return a block's id as what it is; None if it is no id at all."""
    if isinstance(given, UUID):
        return given
    try:
        return UUID(given)
    except (ValueError, AttributeError, TypeError):
        return None
