"""Gate: checks the key of a request, reserves its place in the engine and bounds its body, before anything is read."""

import asyncio
import logging
import secrets

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmrnn.inference.engine.engine import Engine, Reservation
from mmrnn.inference.engine.request import EngineClosedError, QueueFullError
from mmrnn.inference.server.errors import APIError, error_response
from mmrnn.inference.server.limits import Limits

log = logging.getLogger(__name__)

CHAT_PATH, HEALTH_PATH = "/v1/chat/completions", "/health"

RESERVATION = "mmrnn.reservation"
"""Key of the place of a request, in its scope."""


class StalledClientError(Exception):
    """A client that keeps its connection open and takes nothing of its reply."""


class Gate:
    """ASGI application around another one.

    A place in the engine (`scope[RESERVATION]`) is held until the response has been sent or the client has
    gone.

    Args:
        app: inner application.
        engine: whose places are reserved.
        limits: of the body.
        api_key: that a request must have, except for the one about health; None: none.
    """

    def __init__(self, app: ASGIApp, engine: Engine, limits: Limits, api_key: str | None) -> None:
        self.app, self.engine, self.limits = app, engine, limits
        self._expected = None if api_key is None else f"Bearer {api_key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it with an error."""
        if scope["type"] != "http" or scope["path"] == HEALTH_PATH:
            await self.app(scope, receive, send)
            return
        try:
            headers = dict(scope["headers"])
            self._check(headers)
            if (scope["method"], scope["path"]) != ("POST", CHAT_PATH):
                await self.app(scope, self._bounded(receive), send)
                return
            with self._reserve() as reservation:
                await self.app({**scope, RESERVATION: reservation}, self._bounded(receive), self._timed(send))
        except APIError as error:
            await error_response(error)(scope, receive, send)
        except StalledClientError:  # the response is incomplete, so the connection is closed
            log.warning("a client has not taken its reply for %s s", self.limits.client_seconds)

    def _check(self, headers: dict[bytes, bytes]) -> None:
        """Raise for a wrong key, and for a body that is announced to be too large."""
        given = headers.get(b"authorization", b"")
        if self._expected is not None and not secrets.compare_digest(given, self._expected):
            raise APIError(
                401,
                "the API key is missing or wrong; send it as `Authorization: Bearer KEY`",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        size = headers.get(b"content-length", b"0")
        if size.isdigit() and (len(size) > 18 or int(size) > self.limits.max_body_bytes):
            raise self._too_large()

    def _reserve(self) -> Reservation:
        try:
            return self.engine.reserve()
        except QueueFullError as error:
            raise APIError(429, f"{error}; try again later", code="queue_full", headers={"Retry-After": "1"}) from None
        except EngineClosedError:
            raise APIError(503, "the server is being shut down", code="shutting_down") from None

    def _too_large(self) -> APIError:
        return APIError(
            413, f"the body is too large; {self.limits.max_body_bytes} bytes are allowed", code="body_too_large"
        )

    def _bounded(self, receive: Receive) -> Receive:
        """Receiver of a body of bounded size that must have arrived in time."""
        deadline = asyncio.get_running_loop().time() + self.limits.client_seconds
        size, whole = 0, False

        async def bounded() -> Message:
            nonlocal size, whole
            if whole:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), deadline - asyncio.get_running_loop().time())
            except asyncio.TimeoutError:
                raise APIError(408, f"the body has not arrived in {self.limits.client_seconds} s") from None
            size += len(message.get("body", b""))
            whole = message["type"] == "http.disconnect" or not message.get("more_body", False)
            if size > self.limits.max_body_bytes:
                raise self._too_large()
            return message

        return bounded

    def _timed(self, send: Send) -> Send:
        """Sender to a client that must take each part in time."""

        async def timed(message: Message) -> None:
            try:
                await asyncio.wait_for(send(message), self.limits.client_seconds)
            except asyncio.TimeoutError:
                raise StalledClientError from None

        return timed
