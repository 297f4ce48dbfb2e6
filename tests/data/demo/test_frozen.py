"""The default data set stays the same to the byte: published figures were measured on it."""

from hashlib import sha256

import pytest
from PIL import __version__ as pillow

from mmrnn.data import DemoVQA
from mmrnn.data.demo.dataset import SPLITS

MADE_WITH = "13.0.0"
TEXTS = {
    "train": "ebeafa6f54a497b6",
    "scenes": "be7b67865afc703a",
    "drawings": "57d00f8da2dcf485",
    "writing": "bf67108d10206c8e",
}
PIXELS = {
    "train": "73171239b31597d2",
    "scenes": "6d711132a1958f2b",
    "drawings": "39d259e12c2986c6",
    "writing": "a3a394051f25a0df",
}


def samples(split: str):
    dataset = DemoVQA(split=split, scenes=500)
    return [dataset[number] for number in range(0, len(dataset), max(1, len(dataset) // 40))]


@pytest.mark.parametrize("split", SPLITS)
def test_questions_answers_and_scenes(split):
    digest = sha256()
    for sample in samples(split):
        [image] = sample.images
        things = [(repr(p.thing), repr(p.x), repr(p.y), p.side, p.angle, p.ink) for p in image.scene.placed]
        turns = [(turn.role, turn.text) for turn in sample.turns]
        digest.update(repr((turns, sample.kind, sample.id, image.key, image.scene.background, things)).encode())
    assert digest.hexdigest()[:16] == TEXTS[split]


@pytest.mark.parametrize("split", SPLITS)
def test_pixels(split):
    if pillow != MADE_WITH:
        pytest.skip(f"other versions of Pillow than {MADE_WITH} may round otherwise")
    digest = sha256()
    for sample in samples(split):
        digest.update(sample.images[0].open().tobytes())
    assert digest.hexdigest()[:16] == PIXELS[split]
