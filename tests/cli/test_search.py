"""`mmrnn search`: lines and objects of what is found, and mistakes in one sentence."""

import json

import pytest
from PIL import Image

from mmrnn.cli.main import main
from tests.inference.retrieval_run import COLORS, caption, train, write_images


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model that has learnt the captions of its images by heart."""
    folder = tmp_path_factory.mktemp("stage1")
    return train(folder, "stage.bridge.lr=0.003", "stage.bridge.train=[encoder,connector,objective]", steps=60)


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "images")


@pytest.fixture
def search(run, capsys):
    """Exit code, lines of stdout and stderr."""

    def call(*words, run=run):
        capsys.readouterr()
        code = main(["search", *map(str, words), "--run", str(run)])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return call


def test_text_and_image(search, images):
    found = {}
    for color in COLORS:
        code, lines, _ = search(caption(color), images, "-k", 3)
        assert (code, len(lines)) == (0, 3)
        scores, paths = zip(*(line.split("\t") for line in lines), strict=True)
        assert [*scores] == sorted(scores, reverse=True)
        found[color] = paths[0]
    assert sum(path == str(images / f"{color}.png") for color, path in found.items()) >= 4
    code, [line], err = search(images / "blue.png", images, "--top", 1)
    assert (code, line) == (0, f"1.0000\t{images / 'blue.png'}")
    assert err == ""


def test_objects_and_what_is_said_beside_them(search, images, tmp_path):
    (images / "broken.png").write_text("no image")
    words = ("a wall", images, "--json", "-k", 2, "--index", tmp_path / "index")
    code, lines, err = search(*words)
    assert code == 0
    assert [*json.loads(lines[0])] == ["query", "image", "score"]
    assert len(lines) == 2
    assert f"mmrnn: 7 images new or changed, 0 gone or changed; index: {tmp_path / 'index'}\n" in err
    assert err.endswith(f"1 of 7 images cannot be opened:\n  {images / 'broken.png'}: an image is of no known format\n")
    (images / "broken.png").unlink()
    assert "0 images new or changed, 1 gone or changed" in search(*words)[2]
    assert search(*words) == (0, lines, "")
    assert not [path for path in images.iterdir() if path.name.startswith(".")]


def test_a_reason_in_a_hostile_index_is_printed_without_control_characters(search, images, tmp_path):
    (images / "broken.png").write_text("no image")
    words = ("a wall", images, "--index", tmp_path / "index")
    search(*words)
    content = (tmp_path / "index").read_bytes()
    assert content.count(b"an image is of") == 1
    (tmp_path / "index").write_bytes(content.replace(b"an image is of", b"\\u001b[2J".ljust(14)))
    err = search(*words)[2]
    assert "broken.png: \ufffd[2J" in err
    assert "\x1b" not in err


def test_a_second_ordering(search, images):
    """The first N are in another order, with other scores; the others follow as they were."""
    plain = [line.split("\t")[1] for line in search("a white wall", images)[1]]
    code, lines, _ = search("a white wall", images, "--rerank", 4, "-k", 5)
    assert code == 0
    paths = [line.split("\t")[1] for line in lines]
    assert sorted(paths[:4]) == sorted(plain[:4])
    assert paths[4] == plain[4]
    [best] = search("a white wall", images, "--rerank", 4, "-k", 1)[1]
    assert best == lines[0]
    assert float(best.split("\t")[0]) > float(lines[1].split("\t")[0])
    code, lines, err = search(images / "blue.png", images, "--rerank", 4)
    assert (code, lines) == (2, [])
    assert "--rerank reads images with a text, and the query is an image" in err


def test_a_folder_without_images(search, tmp_path):
    (tmp_path / "empty").mkdir()
    code, lines, err = search("a cat", tmp_path / "empty")
    assert (code, lines) == (1, [])
    assert "holds no image that can be opened" in err


@pytest.mark.parametrize(
    ("query", "more", "fault"),
    [
        ("photo.jpg", (), "there is no image photo.jpg; a text to search for has no such ending"),
        ("", (), "a text to embed is a string with words, and '' is none"),
        ("word " * 900, (), "is longer than the positions of the connector"),
        ("a cat", ("-k", "0"), "expected a whole number of at least 1, got '0'"),
        ("a cat", ("--index", "/nowhere/index"), "/nowhere/index: there is no folder /nowhere for the index; name"),
        ("a cat", ("--index", "{}"), "is damaged or no index of images"),
        ("a cat", ("--device", "tpux"), "device=tpux: must be one of"),
        ("a cat", ("more",), "more: one word too many"),
    ],
)
def test_mistakes(search, images, tmp_path, query, more, fault):
    Image.new("RGB", (2, 2)).save(tmp_path / "other.png")
    code, lines, err = search(query, images, *(word.format(tmp_path / "other.png") for word in more))
    assert (code, lines) == (2, [])
    assert fault in err
    assert len(err.splitlines()) == 1


def test_a_folder_that_is_none(search, images):
    assert "search: nowhere is no folder" in search("a cat", "nowhere")[2]
    assert search("a cat", images, run="nowhere")[0] == 2
