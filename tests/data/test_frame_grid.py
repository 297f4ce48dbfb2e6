"""Frames of a video as one image: in the order of time, with the tokens of one image."""

import json

import pytest
from PIL import Image

from mmrnn.data import LLaVAJson, frame_grids, frames
from mmrnn.types.sample import TAG


@pytest.fixture
def clip(tmp_path):
    """Twelve frames, each lighter than the one before; one of them has another size."""
    (tmp_path / "clip").mkdir()
    for number in range(12):
        size = (16, 8) if number != 5 else (8, 16)
        Image.new("RGB", size, (10 * number,) * 3).save(tmp_path / "clip" / f"{number}.png")
    return tmp_path / "clip"


def test_frames_lie_row_by_row_in_the_order_of_time(clip):
    grids = frame_grids(frames(clip, 12), 2, 3)
    assert len(grids) == 2
    for number, grid in enumerate(grids):
        image = grid.open()
        assert image.size == (15, 8)
        levels = [image.getpixel((5 * col + 2, 4 * row + 2))[0] for row in range(2) for col in range(3)]
        assert levels == [10 * (6 * number + place) for place in range(6)]
    assert grids[0].key == f"2x3:{clip}#1/12-{clip}#6/12"
    with pytest.raises(ValueError, match=r"frames \(12\) must be a multiple of 5 x 1"):
        frame_grids(frames(clip, 12), 5, 1)


def test_a_record_with_a_video_becomes_as_many_images_as_there_are_grids(clip, tmp_path):
    turns = [{"from": "human", "value": "<video>\nwhat?"}, {"from": "gpt", "value": "light"}]
    (tmp_path / "a.json").write_text(json.dumps([{"id": "a", "video": "clip", "conversations": turns}]))
    [sample] = LLaVAJson(file=str(tmp_path / "a.json"), frames=8, grid=(2, 2))
    assert sample.turns[0].text.count(TAG) == len(sample.images) == 2
    assert sample.images[1].open().getpixel((1, 1))[0] == sample.images[1].frames[0].open().getpixel((1, 1))[0]
    with pytest.raises(ValueError, match=r"frames \(9\) must be a multiple of 2 x 2"):
        LLaVAJson(file=str(tmp_path / "a.json"), frames=9, grid=(2, 2))
