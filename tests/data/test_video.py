"""Videos become images."""

import json
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from PIL import Image

from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.data import VIDEO, Collator, Frame, ImageError, ImageFile, LLaVAJson, frames, image, video, video_frames
from mmrnn.data.video import frame_indices, list_images
from mmrnn.data.video_turns import expand_videos
from mmrnn.model.build import build
from mmrnn.types import Turn


def grey(level, size=(6, 4)):
    return Image.new("RGB", size, (level, level, level))


def level(image):
    """Mean brightness of an image, in tens."""
    return round(sum(image.getpixel((2, 2))) / 30)


@pytest.fixture(params=["GIF", "WEBP", "PNG", "folder"])
def clip(request, tmp_path):
    """Twelve frames, each lighter than the one before."""
    images = [grey(10 * number) for number in range(12)]
    if request.param == "folder":
        (tmp_path / "clip").mkdir()
        for number, image in enumerate(images):
            image.save(tmp_path / "clip" / f"frame{number}.png")
        (tmp_path / "clip" / "notes.txt").touch()
        return tmp_path / "clip"
    path = tmp_path / f"clip.{request.param.lower()}"
    more = {"lossless": True} if request.param == "WEBP" else {}
    images[0].save(path, request.param, save_all=True, append_images=images[1:], duration=40, **more)
    return path


def test_frames_are_spread_evenly(clip):
    images = [frame.open() for frame in frames(clip, 4)]
    assert all(image.mode == "RGB" and image.size == (6, 4) for image in images)
    assert [level(image) for image in images] == [0, 4, 7, 11]
    assert level(frames(clip, 1)[0].open()) == 5
    assert [level(frame.open()) for frame in frames(clip, 12)] == list(range(12))


@pytest.mark.parametrize(
    ("total", "count", "wanted"), [(10, 1, [4]), (1, 3, [0, 0, 0]), (2, 4, [0, 0, 1, 1]), (100, 3, [0, 50, 99])]
)
def test_which_frames(total, count, wanted):
    assert frame_indices(total, count) == wanted


def test_all_frames_in_order(clip):
    assert [level(frame) for frame in video_frames(clip)] == list(range(12))
    with pytest.raises(ValueError, match="has frames without times; leave out fps"):
        video_frames(clip, fps=2)
    with pytest.raises(ValueError, match=r"fps \(0\) must be a positive number"):
        video_frames(clip, fps=0)


def test_an_image_is_a_video_of_one_frame(tmp_path):
    grey(70).save(tmp_path / "still.png")
    assert [level(frame.open()) for frame in frames(tmp_path / "still.png", 2)] == [7, 7]


def test_numbers_in_names_are_numbers(tmp_path):
    for name in ("f10.png", "f2.png", "f007.png", "g1.png"):
        grey(0).save(tmp_path / name)
    assert [path.name for path in list_images(tmp_path)] == ["f2.png", "f007.png", "f10.png", "g1.png"]


def test_hostile_files(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.gif").write_bytes(b"GIF89a no")
    (tmp_path / "notes.txt").write_text("no video")
    images = [grey(number, (100, 100)) for number in range(0, 200, 20)]
    images[0].save(tmp_path / "long.gif", save_all=True, append_images=images[1:])

    def message(name, **knobs):
        with pytest.raises(ImageError) as raised:
            frames(tmp_path / name, 2, **knobs)[1].open()
        return str(raised.value)

    assert message("empty").endswith("empty holds no images")
    assert "broken.gif is not an image" in message("broken.gif")
    assert message("none.gif").endswith("none.gif is not there")
    assert "File name too long" in message("a" * 300 + ".gif")
    assert message("a" * 300 + ".mp4").endswith("is not there")
    monkeypatch.setattr(Path, "iterdir", Mock(side_effect=PermissionError(13, "Permission denied")))
    assert message("empty").endswith("empty cannot be read: Permission denied")
    monkeypatch.undo()
    assert message("none.mp4").endswith("none.mp4 is not there")
    assert message("notes.txt").endswith("is no video of a known format; use a folder of its frames")
    assert "100 x 100 pixels, 50 are allowed" in message("long.gif", max_pixels=50)
    monkeypatch.setattr(image, "MAX_VIDEO_PIXELS", 99_999)
    assert "long.gif has 10 frames of 100 x 100 pixels, 99999 pixels are allowed in all; use a folder" in message(
        "long.gif"
    )
    monkeypatch.setattr(image, "MAX_VIDEO_BYTES", 10)
    assert "bytes, 10 are allowed" in message("long.gif")
    monkeypatch.setattr(video, "MAX_FRAMES", 0)
    (tmp_path / "empty" / "1.png").touch()
    assert "holds more than 0 files" in message("empty")


def stills(names):
    return [ImageFile(name) for name in names]


def test_tags_become_as_many_images_as_there_are_frames():
    turns = (
        Turn("user", f"<image> and {VIDEO}?"),
        Turn("assistant", f"{VIDEO} is text"),
        Turn("user", f"{VIDEO}<image>"),
    )
    spelled, images = expand_videos(turns, stills("ab"), [stills("123"), stills("45")])
    assert [turn.text for turn in spelled] == [
        "<image> and <image><image><image>?",
        f"{VIDEO} is text",
        "<image><image><image>",
    ]
    assert [image.path for image in images] == [*"a12345b"]
    with pytest.raises(ValueError, match="2 tags <video> for 1 videos"):
        expand_videos(turns, stills("ab"), [stills("1")])
    with pytest.raises(ValueError, match="2 tags <image> for 1 images"):
        expand_videos(turns, stills("a"), [stills("1"), stills("2")])


def records(folder, *listed):
    dialogues = [
        {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "It grows."}], **more}
        for text, more in listed
    ]
    (folder / "data.json").write_text(json.dumps(dialogues))
    return str(folder / "data.json")


def test_a_record_with_a_video(clip):
    folder, name = clip.parent, clip.name
    data = LLaVAJson(
        file=records(
            folder,
            (f"{VIDEO}\nWhat happens?", {"id": "a", "video": name}),
            ("What happens?", {"id": "b", "video": name}),
            (VIDEO, {"id": "c", "video": "../x.gif"}),
            (VIDEO, {"id": "d", "video": "none.gif"}),
        ),
        frames=3,
        verify=True,
    )
    assert len(data) == 1
    assert data[0].turns[0].text == "<image><image><image>\nWhat happens?"
    assert [image.key for image in data.images()] == [f"{name}#{number}/3" for number in (1, 2, 3)]
    assert [level(image.open()) for image in data[0].images] == [0, 6, 11]
    assert dict(data.skipped) == {
        "b": "tags and videos differ in number (0 tags <video> for 1 videos)",
        "c": "video is outside the folder of the images ('../x.gif')",
        "d": f"video is not in the folder ('none.gif' in {folder})",
    }
    with pytest.raises(ValueError, match=r"frames \(0\) must be at least 1"):
        LLaVAJson(frames=0)


@pytest.mark.parametrize("clip", ["GIF"], indirect=True)
@pytest.mark.parametrize("name", ["vila_tiny", "visualrwkv6_tiny"])
def test_a_model_sees_the_frames_of_a_video(name, clip):
    cfg = compose(f"model={name}", "prompt=vila")
    model = build(cfg)
    data = LLaVAJson(file=records(clip.parent, (f"{VIDEO}\nWhat happens?", {"video": clip.name})), frames=3)
    batch = Collator(instantiate(cfg.tokenizer), instantiate(cfg.prompt), dict(model.modalities))([data[0]])
    assert len(batch.sequence.image_spans) == len(batch.images["image"]) == 3
    assert model(batch).hidden.isfinite().all()


@pytest.mark.parametrize("clip", ["folder"], indirect=True)
def test_asking_about_a_video(clip):
    from mmrnn.inference.assistant import Assistant

    cfg = compose("model=vila_tiny")
    assistant = Assistant(build(cfg), instantiate(cfg.tokenizer), instantiate(cfg.prompt))
    assert isinstance(assistant.ask(clip, f"{VIDEO}\nWhat happens?", max_new_tokens=2), str)


def test_film_without_pyav_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "film.mp4").write_bytes(b"no")
    with pytest.raises(ImportError, match=r"film.mp4 needs PyAV .*mmrnn\[video\]'; or use a folder of its frames"):
        Frame(tmp_path / "film.mp4", 0, 2).open()


def test_film(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "film.mp4"), "w") as film:
        stream = film.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for number in range(24):
            for packet in stream.encode(av.VideoFrame.from_image(grey(10 * number, (32, 32)))):
                film.mux(packet)
        for packet in stream.encode():
            film.mux(packet)
    assert [level(frame.open()) for frame in frames(tmp_path / "film.mp4", 3)] == pytest.approx([0, 12, 23], abs=1)
    with pytest.raises(ImageError, match="32 x 32 pixels, 100 are allowed"):
        frames(tmp_path / "film.mp4", max_pixels=100)[0].open()
    assert len([*video_frames(tmp_path / "film.mp4")]) == 24
    found = [level(frame) for frame in video_frames(tmp_path / "film.mp4", fps=5)]
    assert found == pytest.approx([0, 5, 10, 15, 20], abs=1)
    with pytest.raises(ImageError, match="32 x 32 pixels, 100 are allowed"):
        next(video_frames(tmp_path / "film.mp4", max_pixels=100))
    with pytest.raises(ImageError, match="is not there"):
        next(video_frames(tmp_path / "none.mp4"))
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfilm.mp4\n")
    with pytest.raises(ImageError, match=r"list\.mp4 is broken"):
        frames(tmp_path / "list.mp4")[0].open()
