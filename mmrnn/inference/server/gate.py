"""Gate: checks the key of a request, reserves its place in the engine and bounds its body, before anything is read."""

import asyncio
import logging
import secrets
from base64 import b64decode
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmrnn.inference.engine.engine import Engine, Reservation
from mmrnn.inference.engine.request import EngineClosedError, QueueFullError
from mmrnn.inference.server.errors import APIError, error_response
from mmrnn.inference.server.limits import Limits

log = logging.getLogger(__name__)

CHAT_PATH, HEALTH_PATH, PAGE_PATH = "/v1/chat/completions", "/health", "/page"

RESERVATION = "mmrnn.reservation"
"""Key of the place of a request, in its scope."""


def is_page(path: str) -> bool:
    """Return True for a path of the chat page."""
    return f"{path}/".startswith(f"{PAGE_PATH}/")


def reserve(engine: Engine) -> Reservation:
    """Return a place for one request.

    Raises:
        APIError: there is none.
    """
    try:
        return engine.reserve()
    except QueueFullError as error:
        raise APIError(429, f"{error}; try again later", code="queue_full", headers={"Retry-After": "1"}) from None
    except EngineClosedError:
        raise APIError(503, "the server is being shut down", code="shutting_down") from None


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
        self._key = None if api_key is None else api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it with an error."""
        if scope["type"] != "http" or scope["path"] == HEALTH_PATH:
            await self.app(scope, receive, send)
            return
        try:
            headers = dict(scope["headers"])
            self._check_key(headers.get(b"authorization", b""), is_page(scope["path"]))
            self._check_size(headers.get(b"content-length", b"0"))
            if (scope["method"], scope["path"]) != ("POST", CHAT_PATH):
                await self.app(scope, self._bounded(receive), self._timed(send))
                return
            with reserve(self.engine) as reservation:
                await self.app({**scope, RESERVATION: reservation}, self._bounded(receive), self._timed(send))
        except APIError as error:
            await error_response(error)(scope, receive, send)
        except StalledClientError:  # the response is incomplete, so the connection is closed
            log.warning("a client has not taken its reply for %s s", self.limits.client_seconds)

    def _check_key(self, authorization: bytes, page: bool) -> None:
        """Raise for a wrong key. For the page a browser asks its user, and sends the key as a password."""
        if self._key is None:
            return
        scheme, _, given = authorization.partition(b" ")
        if page and scheme == b"Basic":
            with suppress(ValueError):
                scheme, given = b"Bearer", b64decode(given, validate=True).partition(b":")[2]
        if scheme != b"Bearer" or not secrets.compare_digest(given, self._key):
            basic, bearer = "log in with any name and the key as password", "send it as `Authorization: Bearer KEY`"
            raise APIError(
                401,
                f"the API key is missing or wrong; {basic if page else bearer}",
                code="invalid_api_key",
                headers={"WWW-Authenticate": 'Basic realm="mmrnn", charset="UTF-8"' if page else "Bearer"},
            )

    def _check_size(self, announced: bytes) -> None:
        """Raise for a body that is announced to be too large."""
        if announced.isdigit() and (len(announced) > 18 or int(announced) > self.limits.max_body_bytes):
            raise self._too_large()

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
