"""docs/serving.md: its commands and its program run, and its tables have every argument and status."""

import json
import re
import shlex
from pathlib import Path
from threading import Thread

import httpx
import pytest

from mmrnn.checkpoints.save import save
from mmrnn.cli import serve
from mmrnn.config.compose import compose
from mmrnn.config.tree import plain
from mmrnn.inference.server.app import MAX_UPLOADS
from mmrnn.inference.server.schema import WITHOUT_EFFECT, ChatCompletionRequest
from tests.inference.scripted import IMAGE, assistant

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000/v1"
WAIT = 30


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Address of a server that was started by the command of the page."""
    [command] = [line for line in blocks("bash")[0].splitlines() if line.startswith("mmrnn serve")]
    words, folder = shlex.split(command)[2:], tmp_path_factory.mktemp("run")
    assert words[0].startswith("runs/")
    cfg = plain(compose("model=visualrwkv6_tiny", "prompt=first", "out=null"))
    save(assistant("visualrwkv6_tiny", "prompt=first").model, folder, config=cfg)
    with serve.open_server(serve.parser().parse([str(folder), *words[1:], "--port", "0"])) as made:
        thread = Thread(target=made.server.run, kwargs={"sockets": [made.socket]}, daemon=True)
        thread.start()
        yield made.url
        made.server.should_exit = True
        thread.join(WAIT)
    assert not thread.is_alive()


def test_the_program(url, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    IMAGE.convert("RGB").save("photo.jpg")
    [program] = blocks("python")
    assert program.count(ADDRESS) == 1
    exec(program.replace(ADDRESS, url), {})
    first, *later = capsys.readouterr().out.split("\n", 1)
    assert re.search(r"\S.* \d+$", first)
    assert "".join(later).strip()


def test_curl(url):
    whole = blocks("bash")[1].replace("\\n", "\\\\n")
    commands = [shlex.split(each) for each in re.findall(r"^curl .*?(?=^curl|\Z)", whole, re.S | re.M)]
    assert len(commands) == 3
    for words in commands:
        address = words[1].replace(ADDRESS.removesuffix("/v1"), url.removesuffix("/v1"))
        if "-d" in words:
            sent = json.loads(words[words.index("-d") + 1].replace("\\\\n", "\\n"))
            reply = httpx.post(address, json=sent, timeout=WAIT)
            assert len(reply.json()["choices"][0]["logprobs"]["content"]) > 0
        else:
            reply = httpx.get(address, timeout=WAIT)
        assert reply.status_code == 200


def test_the_command_of_the_page():
    [command] = [line for line in blocks("bash")[2].splitlines() if line.startswith("mmrnn serve")]
    assert serve.parser().parse(shlex.split(command)[2:]).page
    assert f"{MAX_UPLOADS} times `--max-body-mib`" in PAGE


def test_every_argument_is_there():
    for name in {*ChatCompletionRequest.model_fields} - {"stream_options"}:
        assert re.search(rf"^\|.*`{name}`.*\|", PAGE, re.M), name
    for name in ("n", "logit_bias", "response_format"):
        assert name in WITHOUT_EFFECT
        assert f"`{name}`" in PAGE


@pytest.mark.parametrize("option", re.findall(r"`(--[a-z-]+)", PAGE))
def test_options_exist(option):
    assert option in {name for action in serve.parser()._actions for name in action.option_strings}
