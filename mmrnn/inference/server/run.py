"""Running of the application by uvicorn."""

import socket

from fastapi import FastAPI
from uvicorn import Config, Server

SPARE_CONNECTIONS = 256
"""Connections beyond the requests that the engine takes: those that are idle, refused, or ask about models."""


def open_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Args:
        host: name or address of an interface.
        port: 0: any that is free.

    Raises:
        OSError: the address is in use, or not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def url_of(sock: socket.socket) -> str:
    """Return the address of the API at a listening socket."""
    host, port = sock.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


class EndingServer(Server):
    """Server that tells its application, by `app.state.ending`, of its end before it waits for responses."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams that have no end of their own, and wait for the others."""
        self.config.app.state.ending.set()
        await super().shutdown(sockets)


def make_server(app: FastAPI, max_requests: int) -> EndingServer:
    """Return a server whose `run(sockets=[...])` blocks until a signal, or until its `should_exit` is set.

    Args:
        app: as of `create_app`.
        max_requests: that the engine takes.
    """
    config = Config(
        app,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=max_requests + SPARE_CONNECTIONS,
        timeout_graceful_shutdown=5,
    )
    return EndingServer(config)
