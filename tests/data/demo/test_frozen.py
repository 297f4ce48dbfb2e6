"""The generated data sets stay the same to the byte: published figures were measured on them."""

from hashlib import sha256

import pytest
from PIL import __version__ as pillow

from mmrnn.data import DemoQuestions, DemoVQA
from mmrnn.data.demo import grid_dataset
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
QUESTIONS = {
    "train": "adef96870f6e3f76",
    "scenes": "b185cd4a227fb908",
    "drawings": "37ccb562f5487246",
    "style": "68334a66b1604ab5",
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


@pytest.mark.parametrize("split", grid_dataset.SPLITS)
def test_questions_in_which_designs_differ(split):
    digest = sha256()
    for shown in ("own", "shuffled") if split == "style" else ("own", "shuffled", "words"):
        dataset = DemoQuestions(split=split, scenes=500, shown=shown, handwriting=True, distractors=2)
        for number in range(0, len(dataset), len(dataset) // 40):
            sample = dataset[number]
            digest.update(repr((sample.turns, sample.images, sample.kind, sample.id, sample.observations)).encode())
    assert digest.hexdigest()[:16] == QUESTIONS[split]
