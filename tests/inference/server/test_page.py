"""Chat page, as a browser asks for it: replies equal those of the assistant, under the limits of the API."""

import io
import json
import os
import socket
from contextlib import contextmanager
from uuid import uuid4

import httpx
import pytest

from mmrnn.inference.server.page_gate import POLICY, remove_oldest
from mmrnn.inference.server.page_messages import to_messages
from mmrnn.io.process_memory import resident_bytes
from tests.inference.scripted import IMAGE, OTHER
from tests.inference.server.live import ENDLESS, WAIT, Live, wait_until
from tests.inference.server.test_completions import alone

LIMITS = {"max_images": 3, "max_pixels": 10_000, "max_body_bytes": 100_000}


@pytest.fixture(scope="module")
def live(used, tmp_path_factory):
    pytest.importorskip("gradio", reason="the page needs gradio: pip install 'mmrnn[page]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", "")  # put back at the end
        made = Live(used.reader, LIMITS, uploads=tmp_path_factory.mktemp("uploads"))
        yield made
        made.stop()


class Visitor:
    """Requests of a browser at the page."""

    def __init__(self, live):
        self.http = httpx.Client(base_url=live.url.removesuffix("/v1") + "/page", timeout=WAIT)
        self.session = uuid4().hex
        config = self.http.get("/config").json()
        self.numbers = {each["api_name"]: each["id"] for each in config["dependencies"]}

    def upload(self, image):
        content = image if isinstance(image, bytes) else png(image)
        reply = self.http.post("/gradio_api/upload", files={"files": ("photo.png", content)})
        reply.raise_for_status()
        return {"path": reply.json()[0], "meta": {"_type": "gradio.FileData"}}

    def call(self, name, data):
        """Response to a call that does not wait in the queue."""
        given = {"data": data, "fn_index": self.numbers[name], "session_hash": self.session}
        return self.http.post("/gradio_api/run/predict", json=given)

    @contextmanager
    def asked(self, question, *files, system=None, length=6):
        """Context with the events of a question."""
        self.call("_clear_and_save_textbox", [{"text": question, "files": files}, None]).raise_for_status()
        data = [None, None, system, length, None, None]
        given = {"data": data, "fn_index": self.numbers["_submit_fn"], "session_hash": self.session}
        self.http.post("/gradio_api/queue/join", json=given).raise_for_status()
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session}) as reply:
            yield (json.loads(line.removeprefix("data: ")) for line in reply.iter_lines() if line)

    def ask(self, question, *images, **options):
        """Text of the reply, or the sentence by which it was refused; the dialogue goes on."""
        with self.asked(question, *map(self.upload, images), **options) as events:
            events = [*events]
        [done] = [event for event in events if event["msg"] == "process_completed"]
        notes = [event["log"] for event in events if event["msg"] == "log"]
        history = done["output"]["data"][1]
        self.call("lambda", [history]).raise_for_status()
        assert len(notes) + (history[-1]["role"] == "assistant") == 1
        return notes[0] if notes else history[-1]["content"][0]["text"]


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def visitor(live):
    made = Visitor(live)
    yield made
    made.http.close()
    wait_until(lambda: live.idle)


def test_replies_equal_those_of_the_assistant(used, visitor):
    first = visitor.ask("what is it?", IMAGE)
    assert first == alone(used, "<image>\nwhat is it?", images=[IMAGE]).strip()
    reply = visitor.ask("and these?", OTHER, IMAGE, system="Be brief.")
    turns = "<image>\nwhat is it?", first, "<image>\n<image>\nand these?"
    assert reply == alone(used, *turns, images=[IMAGE, OTHER, IMAGE], system="Be brief.").strip()


def test_refusals_are_told_and_do_not_end_the_dialogue(used, visitor):
    first = visitor.ask("why?")
    assert "4 images; this server allows 3" in visitor.ask("what?", *[IMAGE] * 4)
    assert "10000 are allowed" in visitor.ask("what?", IMAGE.resize((200, 200)))
    assert "not an image of a known format" in visitor.ask("what?", b"hello")
    assert visitor.ask("what?", length=-1) == "max_tokens: Input should be greater than or equal to 1"
    second = visitor.ask("what?", IMAGE)
    assert second == alone(used, "why?", first, "<image>\nwhat?", images=[IMAGE]).strip()


def test_a_full_queue_is_told(live, visitor):
    places = [live.engine.reserve() for _ in range(live.engine.max_requests)]
    assert "requests are at hand" in visitor.ask("why?")
    for place in places:
        place.release()


def test_it_streams_and_a_visitor_who_vanishes_frees_his_row(live, visitor):
    with visitor.asked("why?", length=ENDLESS) as events:
        for _ in range(5):
            assert next(event for event in events if event["msg"] == "process_generating")
        assert live.engine.requests == 1
    wait_until(lambda: live.idle)


def test_visitors_are_answered_together(live, visitor):
    other = Visitor(live)
    with visitor.asked("why?", length=ENDLESS) as events, other.asked("what?", length=ENDLESS) as others:
        for found in (events, others, events, others):
            assert next(event for event in found if event["msg"] == "process_generating")
        assert len(live.engine._scheduler.rows) == 2
    other.http.close()
    wait_until(lambda: live.idle)


def test_stop_ends_the_reply(live, visitor):
    with visitor.asked("why?", length=ENDLESS) as events:
        event = next(event for event in events if event["msg"] == "process_generating")
        given = {"session_hash": visitor.session, "fn_index": visitor.numbers["_submit_fn"]}
        visitor.http.post("/gradio_api/cancel", json={**given, "event_id": event["event_id"]}).raise_for_status()
        wait_until(lambda: live.idle)


def test_nothing_is_fetched(live, visitor, monkeypatch):
    visitor.ask("why?")  # what is loaded at first use is loaded
    asked = []

    def resolve(host, *_, **__):
        asked.append(host)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    address = "https://example.com/a.png"
    for path in (f"/gradio_api/file={address}", f"/gradio_api/proxy={address}", f"/gradio_api/file/{address}"):
        assert (reply := visitor.http.get(path)).status_code == 403
        assert reply.json()["error"]["message"] == "no address is fetched"
    for call in calls(address):
        assert refused(visitor, call)
    assert asked == []


def calls(path):
    """Bodies that name a file."""
    file = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}
    yield {"data": [{"text": "what?", "files": [file]}, None], "fn_index": 0}
    yield {"data": [[{"role": "user", "content": [{"type": "file", "file": file}]}]], "fn_index": 3}
    yield {"data": [], "fn_index": 4, "event_data": [{"deep": [file]}]}


def refused(visitor, call):
    replies = [
        visitor.http.post(f"/gradio_api/{name}", json={**call, "session_hash": visitor.session})
        for name in ("run/predict", "queue/join", "run/_clear_and_save_textbox", "component_server")
    ]
    return all(
        (reply.status_code, reply.json()["error"]["message"][:29]) == (403, "only uploaded files are read,")
        for reply in replies
    )


def test_no_file_of_the_server_is_read(live, visitor, tmp_path):
    (tmp_path / "secret.png").write_bytes(png(IMAGE))
    for path in (str(tmp_path / "secret.png"), "/etc/passwd", f"{live.uploads}/../secret.png", "README.md"):
        assert visitor.http.get(f"/gradio_api/file={path}").status_code in (403, 404)
        for call in calls(path):
            assert refused(visitor, call)
    reply = visitor.http.post("/gradio_api/component_server", files={"a": b"b"})
    assert (reply.status_code, reply.json()["error"]["message"]) == (400, "the body is not JSON")


def test_the_browser_may_ask_no_other_host(visitor):
    for path in ("/", "/config", "/theme.css"):
        assert visitor.http.get(path).headers["content-security-policy"] == POLICY
    assert visitor.http.get("/config").json()["analytics_enabled"] is False


def test_uploads_are_bounded(live, visitor):
    reply = visitor.http.post("/gradio_api/upload", files={"files": ("photo.png", bytes(200_000))})
    assert reply.status_code == 413
    parts = (b"-" * 1000 for _ in range(1000))
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert visitor.http.post("/gradio_api/upload", content=parts, headers=headers).status_code in (400, 413)
    folder = live.uploads
    for number in range(60):
        visitor.upload(b"%02d" % number + bytes(80_000))
        assert size(folder) <= 33 * LIMITS["max_body_bytes"]
    assert oct(folder.stat().st_mode)[-3:] == "700" or os.name == "nt"


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_oldest_are_removed(tmp_path):
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        (path := tmp_path / str(number) / "a.png").write_bytes(bytes(100))
        os.utime(path, (number, number))
    remove_oldest(tmp_path, 250)
    assert sorted(path.parent.name for path in tmp_path.rglob("*.png")) == ["2", "3"]
    remove_oldest(tmp_path, 0)
    assert [*tmp_path.rglob("*.png")] == []


def test_images_of_a_dialogue_are_bounded(tmp_path):
    (path := tmp_path / "a.png").write_bytes(bytes(100))
    file = {"type": "file", "file": {"path": str(path)}}
    turns = [{"role": "user", "content": [file]}, {"role": "assistant", "content": [{"type": "text", "text": "a"}]}]
    asked = {"text": "what?", "files": [str(path)]}
    assert len(to_messages(asked, turns, "", 200)) == 3
    with pytest.raises(ValueError, match="200 bytes; this server allows 199"):
        to_messages(asked, turns, "", 199)
    path.unlink()
    with pytest.raises(ValueError, match="not kept any more"):
        to_messages(asked, turns, "", 200)


def test_memory_is_bounded(live, visitor):
    from mmrnn.inference.server.page import MAX_SESSIONS

    [mount] = [route for route in live.server.config.app.routes if route.path == "/page"]
    assert mount.app.state_holder.capacity == MAX_SESSIONS


@pytest.mark.slow
def test_memory_is_flat_over_refused_calls(visitor):
    """Less than 8 MB over 2,000 refused calls."""
    given = [*calls("/etc/passwd")]
    for call in given * 20:
        refused(visitor, call)
    grown = []
    for _ in range(3):  # other threads allocate, too: a leak shows each time
        before = resident_bytes()
        for number in range(500):
            assert refused(visitor, given[number % len(given)])
        grown.append(resident_bytes() - before)
    assert min(grown) < 8 * 2**20


def test_a_key(used, tmp_path, monkeypatch):
    pytest.importorskip("gradio", reason="the page needs gradio: pip install 'mmrnn[page]'")
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    made = Live(used.reader, api_key="secret", uploads=tmp_path)
    page = made.url.removesuffix("/v1") + "/page/"
    try:
        for path in ("", "config", "assets/a.js", "gradio_api/upload"):
            for options in ({}, {"auth": ("me", "wrong")}, {"headers": {"authorization": "Basic #"}}):
                reply = httpx.get(page + path, timeout=WAIT, **options)
                assert (reply.status_code, reply.headers["www-authenticate"][:5]) == (401, "Basic")
        assert httpx.get(page, auth=("me", "secret"), timeout=WAIT).status_code == 200
        assert httpx.get(page, headers={"authorization": "Bearer secret"}, timeout=WAIT).status_code == 200
        reply = httpx.get(f"{made.url}/models", auth=("me", "secret"), timeout=WAIT)
        assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
    finally:
        made.stop()


def test_an_open_page_does_not_keep_the_server(used, tmp_path, monkeypatch):
    pytest.importorskip("gradio", reason="the page needs gradio: pip install 'mmrnn[page]'")
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    made = Live(used.reader, uploads=tmp_path)
    with httpx.stream("GET", f"{made.url.removesuffix('/v1')}/page/gradio_api/heartbeat/me", timeout=WAIT) as reply:
        lines = reply.iter_lines()
        assert next(lines) == "data: ALIVE"
        made.server.config.timeout_graceful_shutdown = 10 * WAIT
        made.stop()
        assert not any(lines)
