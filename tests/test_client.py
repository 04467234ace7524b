"""The client: blocks by name and id, and the runs of the current engine."""

import gc
import pickle
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest

from engine import Engine, RunHandle, State, StateType, flow, runtime, task
from engine.blocks import Block, MemoryStore, use_store
from engine.blocks.exceptions import BlockDataError, BlockNameError
from engine.blocks.names import Reference
from engine.blocks.system import JSON, Secret, String
from engine.client import BlockDocument, ObjectNotFound, get_client
from engine.exceptions import NoEngineError
from engine.runs import FlowRun, RunRecord, TaskRun
from engine.settings import SecretStr, temporary_settings

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[MemoryStore]:
    """Keep the blocks of each test apart."""
    blocks = MemoryStore()
    with temporary_settings(home=tmp_path, secret_key=KEY), use_store(blocks):
        yield blocks


def save(block: Block, name: str) -> None:
    """Save a block from outside of any loop."""
    block.save(name)


@pytest.mark.anyio
class TestBlocks:
    async def test_a_block_is_found_by_its_name_and_type(self) -> None:
        """With its identity and fields, and without its class."""
        await String(value="text").save("one")
        await JSON(value={"a": [1]}).save("one")
        async with get_client() as client:
            document = await client.read_block_document_by_name(
                "one", block_type_slug="string"
            )
            other = await client.read_block_document_by_name("one", "json")
        assert isinstance(document, BlockDocument)
        assert isinstance(document.id, UUID)
        assert (document.name, document.block_type_slug) == ("one", "string")
        assert dict(document.data) == {"value": "text"}
        assert dict(other.data) == {"value": {"a": [1]}}
        assert document.id != other.id

    async def test_what_is_missing_is_not_found(self) -> None:
        """The error says what it was, by name or id, and survives pickling."""
        async with get_client() as client:
            with pytest.raises(ObjectNotFound) as raised:
                await client.read_block_document_by_name("none", "string")
            assert str(raised.value) == "there is no block document 'string/none'"
            for missing in (uuid4(), str(uuid4()), "no-id", "", None):
                with pytest.raises(ObjectNotFound, match="block document"):
                    await client.delete_block_document(missing)  # type: ignore[arg-type]
        again = pickle.loads(pickle.dumps(raised.value))
        assert (again.kind, again.identity) == ("block document", "string/none")

    async def test_a_name_that_is_none_is_an_error(self) -> None:
        """It could not have been saved: the error says what names are."""
        async with get_client() as client:
            with pytest.raises(BlockNameError, match="Not A Name"):
                await client.read_block_document_by_name("Not A Name", "string")

    async def test_a_block_is_deleted_by_its_id(self) -> None:
        """As what the store gives, or as text; once."""
        async with get_client() as client:
            for form in (lambda block_id: block_id, str):
                await String(value="text").save("one", overwrite=True)
                document = await client.read_block_document_by_name("one", "string")
                await client.delete_block_document(form(document.id))
                assert await client.read_block_documents() == []
                with pytest.raises(ObjectNotFound):
                    await client.delete_block_document(form(document.id))

    async def test_blocks_are_listed(self) -> None:
        """All, or those of one type, by type and name."""
        for name in ("b", "a"):
            await String(value=name).save(name)
        await JSON(value=1).save("c")
        async with get_client() as client:
            everything = await client.read_block_documents()
            strings = await client.read_block_documents("string")
        assert [one.name for one in everything] == ["c", "a", "b"]
        assert [one.name for one in strings] == ["a", "b"]

    async def test_secrets_are_shown_only_when_asked_for(self) -> None:
        """Else they are asterisks; even then they are masked when printed."""
        await Secret(value="canary").save("one")
        async with get_client() as client:
            hidden = await client.read_block_document_by_name("one", "secret")
            shown = await client.read_block_document_by_name(
                "one", "secret", include_secrets=True
            )
            (listed,) = await client.read_block_documents(include_secrets=True)
        assert "canary" not in repr(hidden) + repr(shown)
        assert hidden.data["value"] == "**********"
        assert shown.data["value"] == listed.data["value"] == SecretStr("canary")

    async def test_a_damaged_block_names_itself(self, store: MemoryStore) -> None:
        """The error is the block's own."""
        store.put(Reference("string", "one"), "{", overwrite=False)
        async with get_client() as client:
            with pytest.raises(BlockDataError, match="string/one"):
                await client.read_block_document_by_name("one", "string")

    async def test_the_loop_is_never_held(self, store: MemoryStore) -> None:
        """The store is asked in threads."""
        here, threads = threading.get_ident(), set[int]()

        class Watching(MemoryStore):
            def __getattribute__(self, name: str) -> Any:
                threads.add(threading.get_ident())
                return super().__getattribute__(name)

        with use_store(Watching()):
            threads.clear()
            async with get_client() as client:
                await client.read_block_documents()
                with pytest.raises(ObjectNotFound):
                    await client.read_block_document_by_name("one", "string")
                with pytest.raises(ObjectNotFound):
                    await client.delete_block_document(uuid4())
        assert threads
        assert here not in threads


@pytest.mark.anyio
class TestRuns:
    async def test_a_flow_run_is_found_live_and_ended(self) -> None:
        """As a view while it goes on, as a record afterwards."""
        go_on = anyio.Event()

        @flow
        async def work() -> str | None:
            await go_on.wait()
            return runtime.flow_run.name

        async with Engine() as engine, get_client() as client:
            handle = engine.start(work)
            live = await client.read_flow_run(handle.id)
            assert isinstance(live, FlowRun)
            assert live.name == handle.name
            go_on.set()
            await handle
            ended = await client.read_flow_run(handle.id)
        assert isinstance(ended, RunRecord)
        assert (ended.name, ended.state_name) == (handle.name, "Completed")

    async def test_it_works_inside_of_a_run(self) -> None:
        """Where the run's own engine is the current one."""

        @task
        async def step() -> None: ...

        @flow
        async def work() -> list[str]:
            await step()
            async with get_client() as client:
                here = await client.read_flow_run(str(runtime.flow_run.id))
                assert here.id == runtime.flow_run.id
                found = await client.read_task_runs(flow_run_id=here.id)
            return [run.state_name for run in found]

        assert await work() == ["Completed"]

    async def test_task_runs_belong_to_their_nearest_flow(self) -> None:
        """Also those that tasks have called; flows inside have their own."""
        go_on = anyio.Event()

        @task
        async def leaf() -> None: ...

        @task
        async def branch() -> None:
            await leaf()
            await inner()
            inside.set()
            await go_on.wait()

        @flow
        async def inner() -> None:
            await leaf()

        @flow
        async def outer() -> None:
            await branch()

        inside = anyio.Event()
        async with Engine() as engine, get_client() as client:
            handle = engine.start(outer)
            await inside.wait()

            async def names(**which: Any) -> list[str]:
                found = await client.read_task_runs(**which)
                assert all(isinstance(run, TaskRun | RunRecord) for run in found)
                return [run.name.rpartition("-")[0] for run in found]

            assert await names(flow_run_id=handle.id) == ["branch", "leaf"]
            (inner_id,) = [
                run.id for run in engine.runs(name="inner") if run.id != handle.id
            ]
            assert await names(flow_run_id=inner_id) == ["leaf"]
            assert await names() == ["branch", "leaf", "leaf"]
            assert await names(name="leaf") == ["leaf", "leaf"]
            assert await names(state_type=StateType.RUNNING) == ["branch"]
            assert await names(flow_run_id="none") == []
            go_on.set()
            await handle
            assert await names(flow_run_id=handle.id) == ["leaf", "branch"]

    async def test_a_flow_run_is_cancelled(self) -> None:
        """Asked to stop, with a reason; asked again it stays as it is."""

        @flow
        async def work() -> None:
            await anyio.sleep_forever()

        async with Engine() as engine, get_client() as client:
            handle = engine.start(work)
            await anyio.wait_all_tasks_blocked()
            await client.cancel_flow_run(handle.id, "not needed any more")
            state = await handle.join()
            await client.cancel_flow_run(handle.id)
        assert (state.name, state.cause) == ("Cancelled", "user")
        assert state.message == "not needed any more"

    async def test_what_the_engine_does_not_know_is_not_found(self) -> None:
        """Neither ids of nobody, nor of tasks, nor of runs it has forgotten."""

        @task
        async def step() -> None:
            await go_on.wait()

        go_on = anyio.Event()
        async with Engine(history=1) as engine, get_client() as client:
            handle = engine.start(step)
            for missing in ("none", handle.id):
                with pytest.raises(ObjectNotFound, match=f"no flow run '{missing}'"):
                    await client.read_flow_run(missing)
                with pytest.raises(ObjectNotFound, match=f"no flow run '{missing}'"):
                    await client.cancel_flow_run(missing)
            assert handle.state.name != "Cancelling"
            go_on.set()
            await handle
            with pytest.raises(ObjectNotFound):
                await client.read_flow_run(handle.id)
            forgotten: RunHandle[None] = engine.start(flow(lambda: None))
            await forgotten
            await engine.start(flow(lambda: None))
            with pytest.raises(ObjectNotFound):
                await client.read_flow_run(forgotten.id)

    async def test_outside_of_engines_there_are_no_runs(self) -> None:
        """The error names the call and the way out."""
        async with get_client() as client:
            with pytest.raises(NoEngineError, match=r"client.read_flow_run\(\)"):
                await client.read_flow_run("one")
            with pytest.raises(NoEngineError, match="read_task_runs"):
                await client.read_task_runs()
            with pytest.raises(NoEngineError, match="cancel_flow_run"):
                await client.cancel_flow_run("one")


def test_a_sync_flows_async_hook_has_a_client() -> None:
    """On the loop in the background, where the seeds' pages use it."""
    found: list[Any] = []

    async def hook(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
        async with get_client() as client:
            found.append(await client.read_block_document_by_name("one", "string"))
            found.append(await client.read_flow_run(flow_run.id))

    @flow(on_completion=[hook])
    def work() -> None:
        save(String(value="text"), "one")

    work()
    assert [found[0].name, found[1].state_name] == ["one", "Completed"]


def test_a_client_that_is_not_used_leaves_nothing() -> None:
    """There is no connection to be closed, and no warning about one."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client = get_client()
        del client
        gc.collect()
