"""New captions of images: every image once, also where the process is killed."""

import json
import os

import pytest
import torch
from PIL import Image

import mmrnn
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.data import LLaVAJson, WebDataset
from mmrnn.data.curation.items import UnreadableError
from mmrnn.data.curation.output import NO_FILE
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.curation import caption as caption_module
from mmrnn.inference.curation.caption import EMPTY, caption_images
from mmrnn.inference.curation.images import FolderImages, RecordImages
from mmrnn.io.journal import LINES, partial_folder
from tests.data.readers.shards import dialogue, image_bytes, write_tar


@pytest.fixture(scope="module")
def assistant():
    torch.manual_seed(0)
    cfg = mmrnn.compose("model=visualrwkv6_tiny", "tokenizer=demo")
    tokenizer, prompt = instantiate(plain(cfg.tokenizer)), instantiate(plain(cfg.prompt))
    return Assistant(mmrnn.build(cfg).eval(), tokenizer, prompt)


@pytest.fixture
def asked(monkeypatch):
    """Colours of the images that a model in place of the real one is asked about; it replies nothing to black."""
    found = []

    def replies(assistant, samples, **options):
        given = []
        for sample in samples:
            try:
                color = sample.images[0].open().getpixel((0, 0))
            except mmrnn.data.ImageError as fault:
                given.append(fault)
                continue
            found.append(color)
            given.append(f" colour {color}" if any(color) else " ")
        return given

    monkeypatch.setattr(caption_module, "replies", replies)
    return found


def lines(out):
    return [json.loads(line) for line in out.read_text().splitlines()]


def write_folder(folder, count=5):
    (folder / "more").mkdir(parents=True)
    for number in range(count):
        where = folder / "more" if number % 2 else folder
        Image.new("RGB", (6, 4), (number + 1, 0, 0)).save(where / f"{number}.png")
    return folder


def test_replies_of_a_model(assistant, tmp_path):
    """The replies are those of `Assistant.ask`, one by one."""
    folder, out = write_folder(tmp_path / "photos"), tmp_path / "new.jsonl"
    found = caption_images(assistant, FolderImages(folder), out, "What?", max_new_tokens=4, batch_size=3)
    made = {line["id"]: line["conversations"] for line in lines(out)}
    assert found.total == 5
    assert found.kept + found.dropped.total == 5
    assert made
    for name, turns in made.items():
        assert turns[0] == {"from": "human", "value": "<image>\nWhat?"}
        assert turns[1]["value"] == assistant.ask(folder / name, "What?", max_new_tokens=4).strip()
    assert [sample.id for sample in LLaVAJson(file=str(out), image_folder=str(folder), verify=True)] == [*made]


def test_a_folder(assistant, asked, tmp_path):
    folder = write_folder(tmp_path / "photos", 3)
    (folder / "broken.png").write_text("no image")
    (folder / "notes.txt").write_text("no image")
    Image.new("RGB", (6, 4)).save(folder / "silent.png")
    out = tmp_path / "new.jsonl"
    found = caption_images(assistant, FolderImages(folder), out, "What?")
    assert [(line["id"], line["image"]) for line in lines(out)] == [(n, n) for n in ("0.png", "2.png", "more/1.png")]
    assert {*found.dropped.reasons} == {"an image is of no known format", EMPTY}
    with pytest.raises(UnreadableError, match=r"record 'broken\.png'"):
        caption_images(assistant, FolderImages(folder), tmp_path / "b.jsonl", "What?", strict=True)
    with pytest.raises(ValueError, match="leave out <image>"):
        caption_images(assistant, FolderImages(folder), tmp_path / "c.jsonl", "<image>What?")


def test_a_name_that_is_no_text(assistant, asked, tmp_path):
    folder = write_folder(tmp_path / "photos", 1)
    Image.new("RGB", (6, 4), "red").save(folder / "b.png")
    try:
        os.rename(folder / "b.png", bytes(folder) + b"/\xff.png")
    except OSError:
        pytest.skip("the file system takes no such name")
    found = caption_images(assistant, FolderImages(folder), tmp_path / "new.jsonl", "What?")
    assert found.kept == 1
    assert {*found.dropped.reasons} == {"the name of a file is not UTF-8"}


def test_images_of_records_are_asked_about_once(assistant, asked, tmp_path):
    write_folder(tmp_path / "photos")
    names = ["0.png", "2.png", "0.png", "4.png"]
    records = [dialogue(id=str(n), image=name) for n, name in enumerate(names)]
    records += [dialogue(id="two", image=["2.png", "more/1.png", "more/3.png"], question="<image><image><image>?")]
    records += [dialogue(id="text", question="?"), {"id": "no turns"}]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    data = LLaVAJson(file=str(tmp_path / "data.jsonl"), image_folder=str(tmp_path / "photos"))
    out = tmp_path / "new.jsonl"
    found = caption_images(assistant, RecordImages(data, {}), out, "What?", batch_size=2)
    assert [line["id"] for line in lines(out)] == ["0", "1", "3", "two-1", "two-2"]
    assert len(asked) == len({*asked}) == 5
    assert (found.total, found.invalid.total) == (5, 1)
    with pytest.raises(UnreadableError, match="no turns"):
        RecordImages(data, {}, strict=True)


def test_images_of_shards_are_written(assistant, asked, tmp_path):
    members = [("a.png", image_bytes("red")), ("a.txt", "red"), ("b.png", image_bytes("blue")), ("b.txt", "blue")]
    data = WebDataset(file=write_tar(tmp_path / "a.tar", members))
    out = tmp_path / "new.jsonl"
    caption_images(assistant, RecordImages(data, {}), out, "What?")
    again = LLaVAJson(file=str(out))
    assert [sample.images[0].open().getpixel((0, 0)) for sample in again] == asked
    assert [sample.id for sample in again] == ["a", "b"]


def test_frames_of_a_video_are_left_out(assistant, asked, tmp_path):
    """They have no file: nothing is asked about them, and a record beside them is captioned."""
    frames = [Image.new("RGB", (6, 4), (shade, 0, 0)) for shade in (50, 100, 150)]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "one.png")
    records = [dialogue(id="video", video="clip.gif", question="<video>?"), dialogue(id="image", image="one.png")]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    out = tmp_path / "new.jsonl"
    data = LLaVAJson(file=str(tmp_path / "data.jsonl"), frames=2)
    found = caption_images(assistant, RecordImages(data, {}), out, "What?")
    assert [line["id"] for line in lines(out)] == ["image"]
    assert asked == [(50, 0, 0)]
    assert found.dropped.reasons == {NO_FILE: (2, "video-0")}


class Killed(BaseException):
    """Stands for a signal."""


@pytest.mark.parametrize("cut", [0, 5])
def test_a_killed_pass_continues(assistant, asked, tmp_path, cut):
    folder = write_folder(tmp_path / "photos", 9)
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    caption_images(assistant, FolderImages(folder), whole, "What?", batch_size=2)
    asked.clear()

    def killed(steps):
        for number, step in enumerate(steps):
            if number == 3:
                raise Killed
            yield step

    with pytest.raises(Killed):
        caption_images(assistant, FolderImages(folder), out, "What?", batch_size=2, track=killed)
    before = partial_folder(out) / LINES
    before.write_bytes(before.read_bytes()[: -cut or None])
    with pytest.raises(ValueError, match="differ in question"):
        caption_images(assistant, FolderImages(folder), out, "What else?")
    caption_images(assistant, FolderImages(folder), out, "What?", batch_size=4)
    assert out.read_bytes() == whole.read_bytes()
    assert len(asked) == 9 + bool(cut)
    assert not partial_folder(out).exists()


def test_a_folder_that_has_changed_meanwhile_is_refused(assistant, asked, tmp_path):
    folder, out = write_folder(tmp_path / "photos"), tmp_path / "out.jsonl"

    def killed(steps):
        raise Killed

    with pytest.raises(Killed):
        caption_images(assistant, FolderImages(folder), out, "What?", track=killed)
    Image.new("RGB", (6, 4)).save(folder / "new.png")
    with pytest.raises(ValueError, match="differ in files of the folder"):
        caption_images(assistant, FolderImages(folder), out, "What?")
