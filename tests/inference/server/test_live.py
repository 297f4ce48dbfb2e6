"""A server on a loopback port, with OpenAI's client, clients that vanish, and its end."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from tests.inference.scripted import IMAGE, OTHER
from tests.inference.server.conftest import body
from tests.inference.server.live import ENDLESS, WAIT, Live, wait_until
from tests.inference.server.test_completions import alone


@pytest.fixture(scope="module")
def live(used):
    made = Live(used.reader, api_key="key")
    yield made
    made.stop()
    assert not made.engine.alive


@pytest.fixture(scope="module")
def client(live):
    with openai.OpenAI(base_url=live.url, api_key="key", max_retries=0, timeout=WAIT) as made:
        yield made


def test_openai_client(used, client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    given = body("what is it?", IMAGE)
    expected = alone(used, "<image>\nwhat is it?", images=[IMAGE])
    reply = client.chat.completions.create(**given)
    assert reply.choices[0].message.content == expected
    assert reply.usage.total_tokens > reply.usage.completion_tokens > 0
    parts = [*client.chat.completions.create(**given, stream=True, stream_options={"include_usage": True})]
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == expected
    assert parts[-1].usage == reply.usage.model_copy(
        update={"prompt_tokens_details": parts[-1].usage.prompt_tokens_details}
    )
    reply = client.chat.completions.create(**given, logprobs=True, top_logprobs=2)
    assert len(reply.choices[0].logprobs.content[0].top_logprobs) == 2


def test_openai_errors(live, client):
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt'"):
        client.chat.completions.create(**{**body(), "model": "gpt"})
    with pytest.raises(openai.BadRequestError, match="no address is fetched"):
        client.chat.completions.create(**body("what?", "http://127.0.0.1/a.png"))
    with (
        openai.OpenAI(base_url=live.url, api_key="other", max_retries=0) as other,
        pytest.raises(openai.AuthenticationError, match="API key"),
    ):
        other.models.list()
    places = [live.engine.reserve() for _ in range(16)]
    with pytest.raises(openai.RateLimitError, match="16 requests are at hand"):
        client.chat.completions.create(**body())
    for place in places:
        place.release()


def test_interleaved_clients(used, client):
    images = [(), (IMAGE,), (OTHER, IMAGE)]

    def talk(number):
        """Texts of two turns."""
        shown, before, texts = images[number % 3], [], []
        for question in (f"{'why? ' * number}what?", "and so?"):
            given = body(question, *shown, before=before, stream=bool(number % 2))
            reply, shown = client.chat.completions.create(**given), ()
            if number % 2:
                text = "".join(part.choices[0].delta.content or "" for part in reply)
            else:
                text = reply.choices[0].message.content
            texts.append(text)
            before = [*given["messages"], {"role": "assistant", "content": text}]
        return texts

    with ThreadPoolExecutor(12) as pool:
        found = [*pool.map(talk, range(12))]
    for number, texts in enumerate(found):
        shown = images[number % 3]
        first = "<image>\n" * len(shown) + f"{'why? ' * number}what?"
        assert texts[0] == alone(used, first, images=shown)
        assert texts[1] == alone(used, first, texts[0], "and so?", images=shown)


HEADERS = {"authorization": "Bearer key"}


def test_a_client_that_vanishes_frees_its_row(live):
    given = {**body("why?", max_tokens=ENDLESS), "stop": None}
    path = f"{live.url}/chat/completions"
    with httpx.stream("POST", path, json={**given, "stream": True}, headers=HEADERS, timeout=WAIT) as reply:
        lines = reply.iter_lines()
        assert json.loads(next(lines).removeprefix("data: "))
        assert live.engine.requests == 1
    wait_until(lambda: live.idle)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(path, json=given, headers=HEADERS, timeout=0.3)
    wait_until(lambda: live.idle)


def test_clients_that_vanish_do_not_touch_the_others(used, live, client):
    expected = {number: alone(used, f"{'why? ' * number}what?") for number in range(6)}

    def ask(number):
        """Text of a reply; None: the client has gone after some events."""
        given = body(f"{'why? ' * (number % 6)}what?", stream=True)
        with client.chat.completions.create(**given) as parts:
            texts = []
            for part in parts:
                texts.append(part.choices[0].delta.content or "")
                if number % 2 and len(texts) == number % 5:
                    return None
            return "".join(texts)

    with ThreadPoolExecutor(12) as pool:
        found = [*pool.map(ask, range(36))]
    assert found.count(None) > 9
    assert all(text in (None, expected[number % 6]) for number, text in enumerate(found))
    wait_until(lambda: live.idle)


def test_shutdown_ends_streams_and_threads(used):
    made = Live(used.reader, api_key="key")
    path = f"{made.url}/chat/completions"
    given = body("why?", max_tokens=ENDLESS, stream=True)
    with httpx.stream("POST", path, json=given, headers=HEADERS, timeout=WAIT) as reply:
        lines = reply.iter_lines()
        assert next(lines)
        begun = time.monotonic()
        made.engine.close(WAIT)
        made.stop()
        assert "the server is being shut down" in "".join(lines)
    assert time.monotonic() - begun < WAIT
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{made.url}/models")


@pytest.fixture
def impatient(used):
    """A server whose clients have half a second, and whose socket keeps little for them."""
    made = Live(used.reader, {"client_seconds": 0.5})
    made.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    yield made
    made.stop()


def connected(live, **arguments):
    """Connection that has sent all of a request but its last byte, and that byte."""
    content = json.dumps({**body("why?", max_tokens=ENDLESS), **arguments}).encode()
    host, port = live.socket.getsockname()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.settimeout(WAIT)
    made.connect((host, port))
    made.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content[:-1])
    return made, content[-1:]


def test_a_client_that_sends_slowly_frees_its_place(impatient):
    slow, _ = connected(impatient)
    with slow:
        wait_until(lambda: impatient.engine.requests == 1)
        assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")
        wait_until(lambda: impatient.idle)


def test_a_client_that_reads_nothing_frees_its_row(impatient):
    slow, last = connected(impatient, stream=True)
    with slow:
        slow.sendall(last)
        wait_until(lambda: len(impatient.engine._scheduler.rows) == 1)
        with httpx.stream(
            "POST", f"{impatient.url}/chat/completions", json=body("why?", stream=True), timeout=WAIT
        ) as reply:
            assert "[DONE]" in "".join(reply.iter_lines())
        wait_until(lambda: impatient.idle)
