"""Samples behind examples: other samples of the set, each with its images, and the questions held out as before."""

import pytest

from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.data import DemoQuestions, FewShot
from mmrnn.data.few_shot import joined
from mmrnn.types import Sample, Turn
from mmrnn.types.sample import TAG

SMALL = DemoQuestions(scenes=6, rounds=2, turns=2)


def test_examples_are_other_samples_before_each():
    few = FewShot(data=SMALL, shots=3)
    assert len(few) == len(SMALL)
    seen = set()
    for index in range(len(few)):
        sample, own = few[index], SMALL[index]
        assert sample.turns[-len(own.turns) :] == own.turns
        assert sample.images[len(sample.images) - len(own.images) :] == own.images
        assert sum(turn.text.count(TAG) for turn in sample.turns) == len(sample.images)
        assert (sample.id, sample.kind) == (own.id, own.kind)
        before = sample.turns[: -len(own.turns)]
        found = {other for other in range(len(SMALL)) if set(SMALL[other].turns) <= {*before} and other != index}
        assert len(found) >= 3
        seen |= found
        assert sample == few[index]
    assert seen == set(range(len(SMALL)))
    assert FewShot(data=SMALL, shots=3, seed=1)[0] != few[0]
    assert {*few.held_out(9)} == {*SMALL.held_out(9)}
    assert [image.key for image in few.images()] == [image.key for image in SMALL.images()]


def test_the_system_message_is_that_of_the_sample():
    samples = [
        Sample((Turn("system", f"s{n}"), Turn("user", f"q{n}"), Turn("assistant", f"a{n}")), id=str(n)) for n in (1, 2)
    ]
    found = joined(samples)
    assert [turn.text for turn in found.turns] == ["s2", "q1", "a1", "q2", "a2"]
    assert found.id == "2"


def test_too_few_samples_are_refused_and_any_set_can_be_chosen():
    with pytest.raises(ValueError, match="12 samples are too few for 12 examples before each"):
        len(FewShot(data=SMALL, shots=12))
    with pytest.raises(ValueError, match="take the data set itself"):
        FewShot(data=SMALL, shots=0)
    card = plain(compose("data=few_shot", "data@data.data=questions", "data.data.scenes=8", "data.shots=2"))["data"]
    assert isinstance(instantiate(card).data, DemoQuestions)
