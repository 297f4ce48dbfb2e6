from random import Random

import numpy as np
import pytest

from mmrnn.data import DemoVQA
from mmrnn.data.demo.digits import HELD_OUT, digit_mask, scans, split_digits
from mmrnn.data.demo.drawings import split_drawings
from mmrnn.data.demo.scenes import MAX_OBJECTS, Scene, digit_scene, drawing_scene
from mmrnn.data.demo.sprites import sprite


def inked(scene: Scene, only: int) -> np.ndarray:
    """Mask of the canvas where one of the things is drawn."""
    bare = Scene(scene.size, scene.background, ()).render()
    alone = Scene(scene.size, scene.background, scene.placed[only : only + 1]).render()
    return (np.asarray(bare) != np.asarray(alone)).any(-1)


@pytest.mark.parametrize("number", range(1, MAX_OBJECTS + 1))
def test_drawings_lie_whole_and_apart(number):
    rng, (seen, _) = Random(number), split_drawings()
    for _ in range(20):
        scene = drawing_scene(rng, rng.sample(seen, number), 128)
        masks = [inked(scene, only) for only in range(number)]
        for placed, mask in zip(scene.placed, masks, strict=True):
            whole = np.asarray(sprite(placed.thing.char, placed.side, placed.angle))[..., 3] > 128
            assert mask.sum() >= whole.sum(), f"{placed.thing.name} is cut off"
            rows, cols = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
            assert abs((rows[0] + rows[-1]) / 2 - placed.y) < 6
            assert abs((cols[0] + cols[-1]) / 2 - placed.x) < 6
        assert sum(mask.sum() for mask in masks) - np.logical_or.reduce(masks).sum() <= 0.02 * 128**2


@pytest.mark.parametrize("number", range(1, 5))
def test_digits_stand_in_a_row(number):
    rng, (seen, _) = Random(number), split_digits()
    for _ in range(20):
        digits = rng.choices(seen, k=number)
        scene = digit_scene(rng, digits, 128)
        assert [placed.thing for placed in scene.digits] == digits
        for only in range(number):
            placed = scene.placed[only]
            assert inked(scene, only).sum() >= (np.asarray(digit_mask(placed.thing.index, placed.side)) > 128).sum()


@pytest.mark.parametrize("fold", [0, 1])
def test_held_out_handwriting_starts_and_ends_with_a_form(fold):
    """Every writer copied the same text, which starts with 0 to 9 three times over."""
    digits = "".join(map(str, scans()[1]))
    start = "0123456789" * 3
    assert digits.startswith(start)
    first, last = HELD_OUT[fold].start, HELD_OUT[fold].stop
    assert digits[first:].startswith(start)
    assert digits[first - 10 : first] != "0123456789"
    assert last is None or digits[last:].startswith(start)
    seen, held = split_digits(fold)
    assert [digit.index for digit in held] == list(range(len(digits)))[HELD_OUT[fold]]
    assert len(seen) + len(held) == len(digits)
    assert 0.15 < len(held) / len(digits) < 0.25
    assert not {digit.index for digit in seen} & {digit.index for digit in held}
    assert set("0123456789") == {str(digit.value) for digit in held}


def test_grounds_are_light_and_dark():
    dataset = DemoVQA(scenes=300, rounds=1)
    light = [np.asarray(Scene(8, dataset[i].images[0].scene.background, ()).render()).mean() for i in range(300)]
    assert np.percentile(light, 10) < 110
    assert np.percentile(light, 90) > 190
