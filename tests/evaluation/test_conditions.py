"""Held-out questions behind text and behind examples: records as of any split, of the same questions."""

import pytest

from mmrnn.data import DemoQuestions
from mmrnn.evaluation.conditions import (
    Conditions,
    Examples,
    at_distance,
    base_split,
    text_ids,
    with_shots,
)
from mmrnn.evaluation.held_out import HeldOut
from mmrnn.evaluation.reports.statistics import image_clusters
from mmrnn.tokenizers import DemoTokenizer
from mmrnn.types import Sample


def test_names_of_splits():
    assert base_split(at_distance("new_scenes", 1000)) == "new_scenes"
    assert base_split(with_shots("scenes", 4)) == "scenes"
    assert base_split("after_all") == "after_all"
    assert Conditions.of({"distance": (100, 10, 10), "shots": (2,)}) == ([10, 100], [2])


def test_the_text_is_that_of_training():
    data, tokenizer = DemoQuestions(scenes=2, rounds=1), DemoTokenizer()
    ids = text_ids(data, tokenizer, 200)
    assert len(ids) == 200
    text = tokenizer.decode(ids)
    assert text.startswith("\n" + data[0].turns[0].text.replace("<image>", "").strip())
    assert data[0].turns[1].text in text
    assert "<image>" not in text
    assert text_ids(data, tokenizer, 50) == ids[:50]


def test_without_a_distance_no_text_is_needed():
    assert text_ids(DemoQuestions(scenes=2, rounds=1), DemoTokenizer(), 0) == []
    with pytest.raises(ValueError, match=r"evaluate\.distance: the training samples have no text"):
        text_ids([Sample(())], DemoTokenizer(), 1)


def test_examples_are_other_questions_of_the_kind():
    split = DemoQuestions(kinds=("where", "changed")).held_out(6)["scenes"]
    examples = Examples(split)
    asked = examples.before(4, split[4], 2)
    assert [turn.text for turn in asked.turns] == [turn.text for index in (0, 2, 4) for turn in split[index].turns]
    assert [image.key for image in asked.images] == [image.key for n in (0, 2, 4) for image in split[n].images]
    assert (asked.id, asked.kind) == (split[4].id, "where")
    assert sum(turn.text.count("<image>") for turn in examples.before(1, split[1], 1).turns) == 4
    with pytest.raises(ValueError, match="there are 2 other questions of the kind, for 3 examples"):
        examples.before(0, split[0], 3)


def test_answers_under_conditions_are_to_the_same_questions(tiny_run):
    splits = DemoQuestions(images=1, kinds=("where", "most")).held_out(6)
    assistants = dict.fromkeys(splits, tiny_run.assistant)
    held_out = HeldOut(splits, assistants, batch_size=4, max_new_tokens=3)
    text = text_ids(DemoQuestions(scenes=4, rounds=1), tiny_run.assistant.tokenizer, 20)
    plain = held_out.evaluate()
    found = held_out.evaluate_under(Conditions((5, 20), (1,)), text)
    for name, evaluation in plain.items():
        for label in (at_distance(name, 5), at_distance(name, 20), with_shots(name, 1)):
            other = found.pop(label)
            assert [(one.id, one.truth, one.images, one.index) for one in other.answers] == [
                (one.id, one.truth, one.images, one.index) for one in evaluation.answers
            ]
            assert not other.left_out.total
            assert [one.reply for one in other.answers] != [one.reply for one in evaluation.answers]
        assert image_clusters([one.images for one in evaluation.answers]).max() == 5
    assert found == {}
    [half] = [held_out.evaluate_under(Conditions((5,)), text, first=1, every=2)["scenes_after_5"]]
    assert [one.index for one in half.answers] == [1, 3, 5]
