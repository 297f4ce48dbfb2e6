"""Chat completions: from the body of a request to its reply, whole or as a stream."""

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from mmrnn.inference.engine.engine import Engine, Reservation
from mmrnn.inference.engine.prompt import PreparedPrompt, prepare
from mmrnn.inference.engine.request import EngineClosedError, Finished, GenerationRequest
from mmrnn.inference.reply import Token
from mmrnn.inference.sampler import Sampler
from mmrnn.inference.server.errors import APIError, error_object
from mmrnn.inference.server.gate import RESERVATION
from mmrnn.inference.server.limits import Limits
from mmrnn.inference.server.messages import parse_messages
from mmrnn.inference.server.replies import ReplyObjects, usage
from mmrnn.inference.server.schema import ChatCompletionRequest
from mmrnn.inference.text_stream import TextStream

Events = asyncio.Queue[Token | Finished]

SSE = "text/event-stream"


@dataclass(frozen=True)
class Completions:
    """Answers requests for chat completions.

    Args:
        engine: that generates the replies.
        name: of the model.
        limits: of a request.
        defaults: choice of the next token where a request says nothing.
        pool: that texts and images are prepared in.
    """

    engine: Engine
    name: str
    limits: Limits
    defaults: Sampler
    pool: ThreadPoolExecutor

    async def answer(self, body: ChatCompletionRequest, request: Request) -> Response:
        """Return the response to a request.

        Raises:
            APIError: the request is at fault, or the engine has failed.
        """
        generation, events = await self._submit(body, request.scope[RESERVATION])
        if body.stream:
            return StreamingResponse(self._stream(body, generation, events), media_type=SSE)
        return await _unless_disconnected(request, self._whole(body, generation, events))

    async def chunks(self, body: ChatCompletionRequest, place: Reservation) -> AsyncIterator[dict[str, Any]]:
        """Yield the parts of a streamed reply to a caller in this process.

        Args:
            body: of the request.
            place: of the request in the engine.

        Raises:
            APIError: the request is at fault, or the engine has failed.
        """
        generation, events = await self._submit(body, place)
        async for chunk in self._chunks(body, generation, events):
            yield chunk

    def check_name(self, name: str) -> None:
        """Check the name of a model.

        Raises:
            APIError: it is not the one that is served.
        """
        if name != self.name:
            message = f"there is no model {name!r:.80}; this server has {self.name!r}"
            raise APIError(404, message, code="model_not_found", param="model")

    async def _submit(self, body: ChatCompletionRequest, place: Reservation) -> tuple[GenerationRequest, Events]:
        """Let the engine answer a request; its events come into a queue."""
        self.check_name(body.model)
        events, loop = Events(), asyncio.get_running_loop()
        try:
            generation = await loop.run_in_executor(self.pool, self._generation, body)
            place.submit(generation, lambda event: loop.call_soon_threadsafe(events.put_nowait, event))
        except ValueError as error:
            raise APIError(400, str(error)) from error
        except EngineClosedError:
            raise APIError(503, "the server is being shut down", code="shutting_down") from None
        return generation, events

    def _generation(self, body: ChatCompletionRequest) -> GenerationRequest:
        """Request to the engine; images are opened here."""
        options = body.options(self.defaults, self.limits)
        reader = self.engine.reader
        prompt: PreparedPrompt = prepare(reader, parse_messages(body.messages, self.limits))
        if len(prompt.row.ids) > (allowed := self.limits.max_prompt_tokens):
            raise ValueError(f"the prompt has {len(prompt.row.ids)} tokens; this server allows {allowed}")
        return GenerationRequest(
            prompt.row,
            reader.stop_criteria(options.stop),
            options.max_new_tokens,
            options.sampler,
            options.log_probs,
            prompt.resume_points,
        )

    def _objects(self, body: ChatCompletionRequest) -> ReplyObjects:
        return ReplyObjects(self.name, self.engine.reader.tokenizer, bool(body.logprobs))

    async def _whole(self, body: ChatCompletionRequest, generation: GenerationRequest, events: Events) -> Response:
        tokens: list[Token] = []
        while not isinstance(event := await events.get(), Finished):
            tokens.append(event)
        if event.error is not None:
            raise _engine_error(event.error)
        text = generation.stop.clean(self.engine.reader.tokenizer.decode([token.id for token in tokens]))
        used = usage(len(generation.row.ids), event.cached, len(tokens))
        return JSONResponse(self._objects(body).whole(text, tokens, event.reason, used))

    async def _stream(
        self, body: ChatCompletionRequest, generation: GenerationRequest, events: Events
    ) -> AsyncIterator[str]:
        """Yield the events of a stream."""
        try:
            async for chunk in self._chunks(body, generation, events):
                yield _event(chunk)
        except APIError as error:  # the status has been sent
            yield _event(error_object(error.status_code, error.message, error.code))
            return
        yield "data: [DONE]\n\n"

    async def _chunks(
        self, body: ChatCompletionRequest, generation: GenerationRequest, events: Events
    ) -> AsyncIterator[dict[str, Any]]:
        objects = self._objects(body)
        yield objects.chunk({"role": "assistant", "content": ""})
        text, shown, count = TextStream(self.engine.reader.tokenizer, generation.stop), 0, 0
        while not isinstance(event := await events.get(), Finished):
            count += 1
            text.push(event.id)
            if len(text.text) > shown or objects.log_probs:
                yield objects.chunk({"content": text.text[shown:]}, [event])
            shown = len(text.text)
        if event.error is not None:
            raise _engine_error(event.error)
        text.finish()
        if len(text.text) > shown:
            yield objects.chunk({"content": text.text[shown:]})
        yield objects.chunk({}, reason=event.reason)
        if body.stream_options is not None and body.stream_options.include_usage:
            yield objects.usage_chunk(usage(len(generation.row.ids), event.cached, count))


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


def _engine_error(error: Exception) -> APIError:
    if isinstance(error, EngineClosedError):
        return APIError(503, "the server is being shut down", code="shutting_down")
    return APIError(500, f"the model has failed ({type(error).__name__}); the log of the server says more")


async def _unless_disconnected(request: Request, work) -> Response:
    """Result of some work, which ends when the client has gone."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(gone())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].result() if tasks[0].done() else Response(status_code=499)
    finally:
        for task in tasks:
            task.cancel()
