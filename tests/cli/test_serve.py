"""`mmrnn serve`: options, and a server that a signal ends."""

import inspect
import logging
import os
import re
import signal
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import httpx
import pytest
from fastapi.testclient import TestClient

from mmrnn.checkpoints.save import save
from mmrnn.cli import serve
from mmrnn.cli.main import main
from mmrnn.config.compose import compose
from mmrnn.config.tree import plain
from mmrnn.inference.engine.engine import Engine
from mmrnn.inference.load import load
from mmrnn.inference.sampler import Sampler
from mmrnn.inference.server.limits import Limits
from tests.inference.scripted import assistant
from tests.inference.server.conftest import body


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "kites"
    cfg = plain(compose("model=visualrwkv6_tiny", "prompt=first", "out=null"))
    save(assistant("visualrwkv6_tiny", "prompt=first").model, folder, config=cfg)
    return str(folder)


def test_options_reach_the_server(run):
    words = [run, "--port", "0", "--api-key", "key", "--max-rows", "2", "--max-waiting", "3", "--max-new-tokens", "5"]
    sampler = ["--temperature", "1.5", "--seed", "3"]
    expected = load(run).ask(None, "why?", max_new_tokens=5, sampler=Sampler(temperature=1.5, seed=3))
    with serve.open_server(serve.parser().parse([*words, *sampler, "--max-images", "1"])) as made:
        client = TestClient(made.server.config.app, headers={"authorization": "Bearer key"})
        given = body("why?") | {"model": "kites"}
        del given["max_tokens"]
        assert client.post("/v1/chat/completions", json=given).json()["choices"][0]["message"]["content"] == expected
        reply = client.post("/v1/chat/completions", json={**given, "max_tokens": 6})
        assert "this server allows 5" in reply.json()["error"]["message"]
        assert client.get("/v1/models", headers={"authorization": "Bearer other"}).status_code == 401
        assert made.url == f"http://127.0.0.1:{made.socket.getsockname()[1]}/v1"
        assert made.server.config.limit_concurrency > 5


def test_the_options_default_to_the_values_of_the_classes():
    options = serve.parser().parse([])
    own = {name: each.default for name, each in inspect.signature(Engine).parameters.items() if name != "reader"}
    assert serve._batching(options) == own
    assert serve._limits(options) == Limits()


def test_a_key_from_a_file(tmp_path, capsys):
    file = tmp_path / "key"
    file.write_text("s3cret\n")
    assert serve.parser().parse(["--api-key-file", str(file)]).api_key == "s3cret"
    assert main(["serve", "--api-key", "a", "--api-key-file", str(file)]) == 2
    assert "not allowed with argument" in capsys.readouterr().err
    for content in (b"", b"\n", b"two words", b"\xff"):
        file.write_bytes(content)
        assert main(["serve", "--api-key-file", str(file)]) == 2
        assert f"{file} holds no key: " in capsys.readouterr().err
    assert main(["serve", "--api-key-file", str(tmp_path / "other")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_a_signal_ends_it(run, monkeypatch, capsys):
    open_server, statuses = serve.open_server, []

    def ask_and_stop(made):
        for _ in range(6000):
            if made.server.started:
                break
            time.sleep(0.01)
        try:
            given = {**body("why?", max_tokens=2), "model": "mine"}
            statuses.append(httpx.post(f"{made.url}/chat/completions", json=given, timeout=60).status_code)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    @contextmanager
    def watched(*arguments):
        with open_server(*arguments) as made:
            Thread(target=ask_and_stop, args=(made,), daemon=True).start()
            yield made

    monkeypatch.setattr(serve, "open_server", watched)
    # A shell ignores the signal for processes in the background, and they inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    # Handlers that other tests have left may write to streams that are closed.
    monkeypatch.setattr(logging.root, "handlers", [])
    try:
        assert main(["serve", run, "--host", "localhost", "--port", "0", "--name", "mine"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert statuses == [200]
    out, err = capsys.readouterr()
    assert re.fullmatch(r"mine is served at http://127.0.0.1:\d+/v1 \(Ctrl-C ends\)\n", out)
    assert err == "mmrnn: stopped\n"
    assert "mmrnn-engine" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--port", "65536"], "--port: expected a port below 65536"),
        (["--port", "http"], "--port: expected a whole number"),
        (["--api-key", ""], "--api-key: expected letters, digits and signs"),
        (["--api-key", "schlüssel"], "--api-key: expected letters, digits and signs"),
        (["--max-rows", "0"], "--max-rows: expected a whole number of at least 1"),
        (["--host", "256.1.1.1"], "--host 256.1.1.1 --port 8000: "),
        (["--top-p", "0.5"], "--top-p has no effect at temperature 0"),
        (["--temperature", "nan"], "--temperature (nan)"),
        (["--hots", "x"], "did you mean '--host'"),
    ],
)
def test_mistakes(run, words, sentence, capsys):
    assert main(["serve", run, *words]) == 2
    assert sentence in capsys.readouterr().err


def test_an_address_in_use(run, capsys):
    with serve.open_server(serve.parser().parse([run, "--port", "0"])) as made:
        port = str(made.socket.getsockname()[1])
        assert main(["serve", run, "--port", port]) == 2
    assert f"--host 127.0.0.1 --port {port}: " in capsys.readouterr().err


def test_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["serve"]) == 2
    assert "there is no finished run in runs/" in capsys.readouterr().err


def test_the_page(run, monkeypatch):
    pytest.importorskip("gradio", reason="the page needs gradio: pip install 'mmrnn[page]'")
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    with serve.open_server(serve.parser().parse([run, "--port", "0", "--page", "--api-key", "key"])) as made:
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        assert folder.stat().st_mode & 0o777 == 0o700
        client = TestClient(made.server.config.app)
        assert client.get("/page/").status_code == 401
        assert "kites" in client.get("/page/", auth=("me", "key")).text
        assert client.get("/v1/models", headers={"authorization": "Bearer key"}).status_code == 200
    assert not folder.exists()


def test_the_address_of_the_page_is_told(monkeypatch, capsys):
    server = SimpleNamespace(run=lambda sockets: None)
    opened = serve.Opened(server, None, "kites", "http://127.0.0.1:8000/v1")
    monkeypatch.setattr(serve, "open_server", lambda *_: nullcontext(opened))
    assert main(["serve", "--page"]) == 0
    line = "kites is served at http://127.0.0.1:8000/v1, with a page at http://127.0.0.1:8000/page (Ctrl-C ends)"
    assert capsys.readouterr().out == f"{line}\n"


def test_gradio_is_missing(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["serve", run, "--page"]) == 1
    assert "mmrnn serve --page needs gradio" in (err := capsys.readouterr().err)
    assert "pip install 'mmrnn[page]'" in err


def test_a_package_that_is_missing(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", run]) == 1
    assert "pip install 'mmrnn[serve]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("192.168.0.1", False), ("a", False)],
)
def test_loopback(host, alone):
    assert serve.is_loopback(host) == alone
