"""Text between the images of a question and what follows them: read once, by every distance, as if read as a whole."""

from dataclasses import replace

import pytest
import torch

from mmrnn.data import DemoQuestions
from mmrnn.inference.delayed import delayed_replies, question_row
from mmrnn.inference.generate import decode
from tests.inference.scripted import assistant

TEXT = [int(id) for id in torch.randint(300, 1000, (600,), generator=torch.Generator().manual_seed(0))]
DISTANCES = (3, 40, 600)


def reply_to_the_whole(used, row, distance):
    """Reply to a row in which the text has been put behind the last image, read at once."""
    cut = max(map(used.reader.behind, row.spans))
    whole = replace_ids(row, [*row.ids[:cut], *TEXT[:distance], *row.ids[cut:]])
    last, state = used.reader.read(whole, 0, len(whole.ids), None)
    tokens = decode(used.model, last, state, max_new_tokens=5, finished=used.stop.finished)
    return used.stop.clean(used.tokenizer.decode([token.id for step in tokens for token in step.values()]))


def replace_ids(row, ids):
    return row._replace(ids=ids)


@pytest.mark.parametrize(
    ("name", "prompt"),
    [("visualrwkv6_tiny", "first"), ("visualrwkv7_tiny", "sandwich"), ("llava15_tiny", "last")],
)
def test_replies_are_those_to_the_whole_text(name, prompt):
    """Questions of several lengths about one image or two: other places of the image, and other rests."""
    used = assistant(name, f"prompt={prompt}")
    split = DemoQuestions(kinds=("changed", "where", "count_of")).held_out(6)["scenes"]
    with torch.no_grad():
        rows = [question_row(used, split[index]) for index in range(6)]
        found = delayed_replies(used, rows, DISTANCES, TEXT, max_new_tokens=5)
        expected = [[reply_to_the_whole(used, row, distance) for row in rows] for distance in DISTANCES]
    assert found == expected
    assert len({*map(tuple, found)}) == len(DISTANCES), "the text changes the replies"


def test_without_text_the_replies_are_those_to_the_question():
    used = assistant("visualrwkv6_tiny", "prompt=first")
    split = DemoQuestions(kinds=("where", "count_of")).held_out(4)["scenes"]
    samples = [split[index] for index in range(4)]
    [found] = delayed_replies(used, [question_row(used, one) for one in samples], (0,), (), max_new_tokens=5)
    assert found == used.answer(samples, max_new_tokens=5)


def test_what_cannot_be_asked_is_refused():
    used = assistant("visualrwkv6_tiny", "prompt=first")
    sample = DemoQuestions().held_out(1)["scenes"][0]
    with pytest.raises(ValueError, match="up to 9 tokens, and the text has 3"):
        delayed_replies(used, [question_row(used, sample)], (9,), TEXT[:3])
    turns = [replace(turn, text=turn.text.replace("<image>", "")) for turn in sample.turns]
    with pytest.raises(ValueError, match="the question shows no image"):
        question_row(used, replace(sample, turns=tuple(turns), images=()))
