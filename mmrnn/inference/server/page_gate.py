"""Gate of the chat page: only uploaded files are read, no address is fetched, and uploads are bounded."""

import asyncio
import json
from collections.abc import Sequence
from os.path import abspath
from pathlib import Path
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmrnn.inference.server.errors import APIError
from mmrnn.inference.server.gate import PAGE_PATH, is_page

UPLOAD_PATH = f"{PAGE_PATH}/gradio_api/upload"

POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
"""Content security policy: the browser asks no other host for anything."""


class PageGate:
    """ASGI application around that of the server.

    Where gradio is mounted on another application, it reads any file and fetches any public address that a call names.

    Args:
        app: inner application.
        uploads: folder with the images of the page.
        max_bytes: of all these images; the oldest are removed first.
    """

    def __init__(self, app: ASGIApp, uploads: Path, max_bytes: int) -> None:
        self.app, self.uploads, self.max_bytes = app, Path(abspath(uploads)), max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request of the page in, or refuse it."""
        if scope["type"] != "http" or not is_page(scope["path"]):
            await self.app(scope, receive, send)
            return
        if "://" in scope["path"]:
            raise APIError(403, "no address is fetched")
        if scope["path"] == UPLOAD_PATH:
            await asyncio.to_thread(remove_oldest, self.uploads, self.max_bytes)
        elif scope["method"] not in ("GET", "HEAD"):
            try:
                receive = self._checked(await Request(scope, receive).body(), receive)
            except ClientDisconnect:
                return

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = POLICY
            await send(message)

        await self.app(scope, receive, send_with_policy)

    def _checked(self, body: bytes, receive: Receive) -> Receive:
        """Receiver of the body of a call that names no files but uploaded ones."""
        try:
            json.loads(body, object_pairs_hook=self._check_paths)
        except (ValueError, RecursionError):
            raise APIError(400, "the body is not JSON") from None
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replayed() -> Message:
            return next(messages, None) or await receive()

        return replayed

    def _check_paths(self, pairs: Sequence[tuple[str, Any]]) -> None:
        for key, value in pairs:
            if key == "path" and isinstance(value, str) and not Path(abspath(value)).is_relative_to(self.uploads):
                raise APIError(403, "only uploaded files are read, and no address is fetched; upload the image")


def remove_oldest(folder: Path, max_bytes: int) -> None:
    """Remove the oldest files in a folder until the others have at most `max_bytes`."""
    found = []
    for path in folder.rglob("*"):
        try:
            status = path.stat()
        except OSError:  # removed meanwhile
            continue
        if path.is_file():
            found.append((status.st_mtime, status.st_size, path))
    for _, size, path in sorted(found, reverse=True):
        max_bytes -= size
        if max_bytes < 0:
            path.unlink(missing_ok=True)
