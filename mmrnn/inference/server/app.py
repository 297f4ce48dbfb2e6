"""Application: the routes of the server."""

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer

from mmrnn.inference.engine.engine import Engine
from mmrnn.inference.sampler import Sampler
from mmrnn.inference.server.completions import SSE, Completions
from mmrnn.inference.server.errors import add_error_handlers
from mmrnn.inference.server.gate import CHAT_PATH, HEALTH_PATH, Gate
from mmrnn.inference.server.limits import Limits
from mmrnn.inference.server.openapi import (
    CAUSES,
    ChatCompletion,
    Health,
    Model,
    ModelList,
    describe,
    errors,
)
from mmrnn.inference.server.schema import ChatCompletionRequest

PREPARING_THREADS = 2
"""Threads that tokenise texts and open images; each decodes one image at a time."""

MAX_UPLOADS = 32
"""Largest requests whose images the chat page keeps."""


def create_app(
    engine: Engine,
    name: str,
    *,
    limits: Limits | None = None,
    defaults: Sampler | None = None,
    api_key: str | None = None,
    uploads: Path | None = None,
) -> FastAPI:
    """Return the ASGI application; at its shutdown the engine is closed.

    Args:
        engine: that generates the replies.
        name: of the model.
        limits: of a request; None: those of `Limits`.
        defaults: choice of the next token where a request says nothing; None: the most likely one.
        api_key: that requests must have, except for the one about health; None: none.
        uploads: folder of this application alone, for the images of the chat page; None: there is no page.
    """
    limits = limits or Limits()
    pool = ThreadPoolExecutor(PREPARING_THREADS, "mmrnn-prepare")
    completions = Completions(engine, name, limits, defaults or Sampler(), pool)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(engine.close)
        pool.shutdown(wait=False, cancel_futures=True)

    # Its pages of documentation would load scripts from other hosts.
    app = FastAPI(title="mmrnn", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.ending = asyncio.Event()
    if uploads is not None:
        from mmrnn.inference.server.page import mount_page
        from mmrnn.inference.server.page_gate import PageGate

        mount_page(app, completions, uploads)
        app.add_middleware(PageGate, uploads=uploads, max_bytes=MAX_UPLOADS * limits.max_body_bytes)
    app.add_middleware(Gate, engine=engine, limits=limits, api_key=api_key)
    add_error_handlers(app)

    describe(app, name)
    _add_routes(app, completions, keyed=api_key is not None)
    return app


def _add_routes(app: FastAPI, completions: Completions, keyed: bool) -> None:
    engine, name = completions.engine, completions.name
    model = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "mmrnn"}
    # The gate checks the key; this documents it.
    key = [Depends(HTTPBearer(auto_error=False))] if keyed else []
    reply = {200: {"model": ChatCompletion, "content": {SSE: {}}}}

    @app.post(CHAT_PATH, dependencies=key, responses=reply | errors(400, 401, 404, 408, 413, 429, 500, 503))
    async def chat_completions(body: ChatCompletionRequest, request: Request) -> Response:
        return await completions.answer(body, request)

    @app.get("/v1/models", dependencies=key, responses={200: {"model": ModelList}} | errors(401, 413, 500))
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [model]})

    @app.get(
        "/v1/models/{wanted:path}", dependencies=key, responses={200: {"model": Model}} | errors(401, 404, 413, 500)
    )
    async def one_model(wanted: str) -> Response:
        completions.check_name(wanted)
        return JSONResponse(model)

    @app.get(HEALTH_PATH, responses={200: {"model": Health}, 503: {"description": CAUSES[503], "model": Health}})
    async def health() -> Response:
        status = {"status": "ok" if engine.alive else "closed", "requests": engine.requests}
        return JSONResponse(status, 200 if engine.alive else 503)
