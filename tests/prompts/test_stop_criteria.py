"""A reply ends when it is over, and not only when one certain id says so."""

import pytest

from mmrnn.prompts import RWKVChat, StopCriteria
from mmrnn.tokenizers import DemoTokenizer, RWKVWorldTokenizer
from mmrnn.types import Turn


def steps(stop, ids):
    """After how many ids the reply is over; None: never."""
    return next((count for count in range(1, len(ids) + 1) if stop.finished(ids[:count])), None)


@pytest.mark.parametrize("reply", ["Green", "一只猫。", "好的，", "等一等…", "Yes.", "12345 🙂"])
def test_a_turn_of_world_is_over_exactly_at_its_empty_line(reply):
    tokenizer = RWKVWorldTokenizer()
    ids = tokenizer.encode(f" {reply}\n\n")
    assert steps(StopCriteria(tokenizer, ("\n\n",)), ids) == len(ids)


def test_the_end_id_alone_would_miss_a_chinese_full_stop():
    tokenizer = RWKVWorldTokenizer()
    ids = tokenizer.encode(" 一只猫。\n\n")
    assert 261 not in ids
    assert steps(StopCriteria(tokenizer), ids) is None
    assert steps(StopCriteria(tokenizer, ("\n\n",)), ids) == len(ids)


def test_a_token_that_holds_more_than_the_stop():
    tokenizer = RWKVWorldTokenizer()
    assert tokenizer.encode("\n\n\n") == [3328]
    assert StopCriteria(tokenizer, ("\n\n",)).finished([3328])


def test_an_end_id_ends():
    assert StopCriteria(RWKVWorldTokenizer()).finished([1234, 0])
    assert StopCriteria(DemoTokenizer()).finished([5, 257])
    assert not StopCriteria(RWKVWorldTokenizer()).finished([])


def test_only_the_last_ids_are_looked_at():
    read = []

    class Spy(DemoTokenizer):
        def decode(self, ids):
            read.append(len(ids))
            return super().decode(ids)

    stop = StopCriteria(Spy(), ("###", "</s>"))
    ids = DemoTokenizer().encode("a long reply " * 50 + "##")
    assert not stop.finished(ids)
    assert stop.finished([*ids, *DemoTokenizer().encode("#")])
    assert read == [4, 4]


def test_clean_cuts_at_the_first_stop():
    stop = StopCriteria(DemoTokenizer(), ("\n\n", "###"))
    assert stop.clean(" Green \n\nUser: and ### more") == "Green"
    assert stop.clean(" Green ###\n\n") == "Green"
    assert stop.clean(" Green ") == "Green"


@pytest.mark.parametrize("empty_line", RWKVChat.stops)
@pytest.mark.parametrize("reply", ["Green", "一只猫。", "a\nb"])
def test_every_form_of_the_empty_line_ends_a_turn(empty_line, reply):
    tokenizer = RWKVWorldTokenizer()
    stop = StopCriteria(tokenizer, RWKVChat.stops)
    ids = [id for part in (f" {reply}", empty_line, "User: and") for id in tokenizer.encode(part)]
    end = steps(stop, ids)
    assert end <= len(ids) - len(tokenizer.encode("User: and"))
    assert stop.clean(tokenizer.decode(ids)) == reply


@pytest.mark.parametrize("empty_line", RWKVChat.stops)
def test_no_turn_of_the_training_data_holds_an_empty_line(empty_line):
    [_, _, reply] = RWKVChat().spans([Turn("user", "q"), Turn("assistant", f"a{empty_line}b")], 0)
    assert not any(stop in reply.text.strip() for stop in RWKVChat.stops)
