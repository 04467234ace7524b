"""An engine inside of a web service: some runs follow their client, others do not.

    pip install actor-engine fastapi uvicorn
    python examples/fastapi_service.py  # http://127.0.0.1:8000/docs

A run that a handler awaits is *attached*: it is cancelled when its client goes away. A
run that is *started* goes on; later requests can look for it, or cancel it.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response

from engine import Engine, State, flow


@flow
async def make_report(seconds: float) -> str:
    await anyio.sleep(seconds)
    return f"a report that took {seconds:g} s"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Engine]]:
    async with Engine(shutdown_grace=5.0) as engine:
        yield {"engine": engine}  # as request.state.engine


app = FastAPI(lifespan=lifespan)


@app.get("/report")
async def report_now(request: Request, seconds: float) -> Response:
    state: State[str] | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(cancel_when_gone, request, group.cancel_scope)
        state = await make_report(seconds, return_state=True)
        group.cancel_scope.cancel()
    # 499: nobody is there to read it
    return Response(state.result()) if state else Response(status_code=499)


async def cancel_when_gone(request: Request, scope: anyio.CancelScope) -> None:
    """Cancel *scope* when the client has closed the connection; no server does it."""
    while not scope.cancel_called:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            scope.cancel()


@app.post("/reports", status_code=202)
async def start_report(request: Request, seconds: float) -> dict[str, str]:
    return {"id": request.state.engine.start(make_report, seconds).id}


@app.get("/reports")
async def list_reports(request: Request) -> dict[str, str]:
    return {run.id: run.state_name for run in request.state.engine.runs()}


@app.delete("/reports/{run_id}", status_code=202)
async def cancel_report(request: Request, run_id: str) -> None:
    engine: Engine = request.state.engine
    for handle in engine.handles():
        if handle.id == run_id:
            return handle.cancel("somebody asked for it")
    raise HTTPException(404, "no such run is live")


if __name__ == "__main__":
    uvicorn.run(app)
