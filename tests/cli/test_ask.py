"""`mmrnn ask`: images, folders, text alone, JSON, sampling, boxes, and a terminal."""

import json
import sys

import pytest
from PIL import Image

from mmrnn.checkpoints.save import save
from mmrnn.cli.main import main
from mmrnn.config.compose import compose
from mmrnn.config.tree import plain
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.load import load
from tests.inference.scripted import IMAGE, OTHER, assistant


def write_run(folder, *overrides):
    cfg = plain(compose("model=visualrwkv6_tiny", "out=null", *overrides))
    save(assistant("visualrwkv6_tiny", *overrides).model, folder, config=cfg)
    return str(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), "prompt=first")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Folder of two images, with a third beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    IMAGE.save(tmp_path / "photos" / "2.png")
    OTHER.save(tmp_path / "photos" / "10.png")
    IMAGE.save(tmp_path / "photo.png")
    return tmp_path


def ask(capsys, run, *arguments):
    code = main(["ask", *arguments, "--max-new-tokens", "4", "--run", run])
    out, err = capsys.readouterr()
    return code, out, err


def test_images_text_and_folders(capsys, run, folder):
    used = load(run)
    options = {"max_new_tokens": 4}
    one, both = used.ask(IMAGE, "what?", **options), used.ask([IMAGE, OTHER], "what?", **options)
    alone = used.ask(None, "what?", **options)
    assert ask(capsys, run, "photo.png", "what?") == (0, f"{one}\n", "")
    assert ask(capsys, run, "photo.png", "photos/10.png", "what?") == (0, f"{both}\n", "")
    assert ask(capsys, run, "what?") == (0, f"{alone}\n", "")
    other = used.ask(OTHER, "what?", **options)
    lines = [f"2.png\t{' '.join(one.split())}\n", f"10.png\t{' '.join(other.split())}\n"]
    assert ask(capsys, run, "photos", "what?") == (0, "".join(lines), "")


def test_json(capsys, run, folder):
    code, out, _ = ask(capsys, run, "photo.png", "photos/2.png", "<image> 你 <image>", "--json")
    line = json.loads(out)
    assert code == 0
    assert line.pop("reply") == load(run).ask([IMAGE, IMAGE], "<image> 你 <image>", max_new_tokens=4)
    assert line == {"images": ["photo.png", "photos/2.png"], "question": "<image> 你 <image>"}
    (folder / "photos" / "3.png").write_text("no image")
    code, out, _ = ask(capsys, run, "photos", "what?", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [line["images"] for line in lines] == [["photos/2.png"], ["photos/3.png"], ["photos/10.png"]]
    assert "photos/3.png" in lines[1]["error"]
    assert ["reply" in line for line in lines] == [True, False, True]


def test_an_image_of_a_folder_that_is_broken_is_named(capsys, run, folder):
    (folder / "photos" / "3.png").write_text("no image")
    code, out, err = ask(capsys, run, "photos", "what?")
    assert code == 1
    assert len(out.splitlines()) == 2
    assert err.startswith("mmrnn: photos/3.png")


def test_a_seeded_reply_is_drawn_again(capsys, run, folder):
    options = ("--temperature", "1.5", "--top-k", "300", "--top-p", "0.95", "--seed")
    outs = [ask(capsys, run, "photo.png", "what?", *options, seed)[1] for seed in ("1", "1", "2")]
    assert outs[0] == outs[1] != outs[2]
    # Tokens that come again are preferred to all others.
    again = ask(capsys, run, "photo.png", "what?", "--repetition-penalty", "1e-30")[1]
    assert again != ask(capsys, run, "photo.png", "what?")[1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["photo.png"], 'ask: photo.png is a file; name an image and a question: mmrnn ask photo.jpg "what is this?"'),
        (["none.png", "what?"], "none.png"),
        (["photos", "photo.png", "what?"], "ask: a folder is asked about alone"),
        (["photos", "what?", "--boxes", "b.png"], "ask: a folder is asked about alone, and without --boxes"),
        (["photo.png", "<image><image>"], "the question has 2 <image> for 1 images"),
        (["<image> what?"], "the question has 1 <image> for 0 images"),
        (["photo.png", "what?", "--temperature", "nan"], "--temperature (nan) must be a finite number"),
        (["photo.png", "what?", "--temperature", "hot"], "--temperature: expected a number, got 'hot'"),
        (["photo.png", "what?", "--temperature", "1", "--top-p", "2"], "--top-p (2.0) must lie between 0 and 1"),
        (["photo.png", "what?", "--top-k", "-1"], "--top-k: expected a whole number from 0 on, got '-1'"),
        (["photo.png", "what?", "--min-p", "0.1"], "--min-p has no effect at temperature 0"),
        (["photo.png", "what?", "--repetition-penalty", "0"], "--repetition-penalty (0.0) must be a finite number"),
        (["photo.png", "what?", "--seed", "3"], "--seed has no effect at temperature 0"),
        (["photo.png", "what?", "--boxes", "b.exe"], "--boxes: expected a file that ends with one of .png"),
        (["photo.png", "what?", "--boxes", "b.png"], "--boxes: the prompt of the run writes no boxes"),
        (["what?", "--boxes", "b.png", "--box-form", "llava"], "--boxes: boxes are drawn on one image, not on 0"),
        (["photo.png", "what?", "--boxes", "b.png", "--box-form", "x"], "--box-form: expected one of minigptv2"),
    ],
)
def test_a_mistake_is_one_sentence(capsys, run, folder, arguments, sentence):
    code, out, err = ask(capsys, run, *arguments)
    assert (code, out) == (2, "")
    assert sentence in err
    assert len(err.splitlines()) == 1


@pytest.fixture
def says(monkeypatch):
    """Make every model say a text."""

    def make(text):
        def stream(*_, **__):
            yield from (text[:3], text)
            return text

        monkeypatch.setattr(Assistant, "stream", stream)

    return make


def test_boxes_are_drawn(capsys, run, folder, says):
    Image.new("RGB", (200, 100), "white").save("photo.png")
    says("<p>kite</p> {<10><20><50><80>} and <p>sea</p> {<0><0><400><999>}")
    code, out, _ = ask(capsys, run, "photo.png", "where?", "--boxes", "b.png", "--box-form", "minigptv2")
    assert (code, out.split()[0]) == (0, "<p>kite</p>")
    drawn = Image.open("b.png").convert("RGB")
    assert drawn.size == (200, 100)
    changed = [
        place
        for place in ((20, 50), (100, 50), (60, 20), (60, 79), (0, 50), (199, 50), (60, 50), (150, 50))
        if drawn.getpixel(place) != (255, 255, 255)
    ]
    assert changed == [(20, 50), (100, 50), (60, 20), (60, 79), (0, 50), (199, 50)]
    code, out, _ = ask(capsys, run, "photo.png", "where?", "--json", "--box-form", "minigptv2")
    assert json.loads(out)["boxes"][0] == {"phrase": "kite", "box": [20.0, 20.0, 100.0, 80.0]}


def test_the_form_of_the_boxes_is_that_of_the_prompt(capsys, tmp_path, folder, says):
    run = write_run(tmp_path / "run", "prompt=first", "prompt.boxes=llava")
    Image.new("RGB", (100, 100), "white").save("photo.png")
    says("[0.10, 0.20, 0.50, 0.80]")
    assert ask(capsys, run, "photo.png", "where?", "--boxes", "b.png")[0] == 0
    assert Image.open("b.png").convert("RGB").getpixel((10, 50)) != (255, 255, 255)


def test_a_reply_without_a_box_writes_no_file(capsys, run, folder, says):
    says("nowhere")
    code, out, err = ask(capsys, run, "photo.png", "where?", "--boxes", "b.png", "--box-form", "cogvlm")
    assert (code, out) == (1, "nowhere\n")
    assert err == "mmrnn: the reply holds no box, so b.png is not written\n"
    assert not (folder / "b.png").exists()


def test_a_terminal_gets_the_reply_as_it_arrives(capsys, run, folder, says, monkeypatch):
    written = []
    says("a \x1b[31mcat\n")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stdout, "write", written.append)
    assert main(["ask", "photo.png", "what?", "--run", run]) == 0
    assert written[:2] == ["a \ufffd", "[31mcat\n"]
