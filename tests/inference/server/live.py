"""A server on a loopback port, in a thread."""

import time
from threading import Thread
from types import MappingProxyType

import pytest

from mmrnn.inference.engine.engine import Engine
from mmrnn.inference.server.app import create_app
from mmrnn.inference.server.limits import Limits
from mmrnn.inference.server.run import make_server, open_socket, url_of

WAIT = 60
ENDLESS = 10**6


class Live:
    """A server in a thread."""

    def __init__(self, reader, limits=MappingProxyType({}), **options):
        self.uploads = options.get("uploads")
        self.engine = Engine(reader, max_rows=4, max_waiting=12, prefill_chunk=16)
        app = create_app(self.engine, "tiny", limits=Limits(**{"max_new_tokens": ENDLESS, **limits}), **options)
        self.socket = open_socket("127.0.0.1", 0)
        self.url = url_of(self.socket)
        self.server = make_server(app, self.engine.max_requests)
        self.thread = Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()
        wait_until(lambda: self.server.started)

    @property
    def idle(self):
        return self.engine.requests == 0 and not self.engine._scheduler.busy

    def stop(self):
        self.server.should_exit = True
        self.thread.join(WAIT)
        self.engine.close(WAIT)
        assert not self.thread.is_alive()


def wait_until(condition):
    for _ in range(WAIT * 100):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it has not come about in time")
