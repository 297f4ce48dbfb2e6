"""States of conversations: branches, undone turns, what conversations share and what they never do."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from mmrnn.inference.assistant import Assistant
from mmrnn.inference.dialogue import question_sample
from mmrnn.inference.sampler import Sampler
from tests.inference.scripted import IMAGE, OTHER, Positions, Script, asked_row, assistant


def equal_states(first, second):
    assert first.tensors.keys() == second.tensors.keys()
    return all(torch.equal(value, second.tensors[name]) for name, value in first.tensors.items())


@pytest.mark.parametrize("name", ["visualrwkv6_tiny", "visualrwkv7_tiny", "llava15_tiny", "flamingo_rwkv_tiny"])
def test_branches_and_undone_turns_are_exact(name):
    chat = assistant(name, "prompt=first").chat()
    chat.ask("what is it?", IMAGE, max_new_tokens=4)
    before, kept = chat.state, chat.state.clone()
    other = chat.branch()
    first = chat.ask("why?", max_new_tokens=4)
    assert other.ask("why?", max_new_tokens=4) == first
    assert equal_states(other.state, chat.state)
    other.ask("what else?", OTHER, max_new_tokens=4)
    chat.undo()
    assert chat.state is before
    assert equal_states(chat.state, kept)
    assert len(chat.turns) == 2
    assert chat.ask("why?", max_new_tokens=4) == first
    chat.undo(2)
    assert (chat.turns, chat.state) == ((), None)
    with pytest.raises(ValueError, match="the conversation has 0 questions, so 3 cannot be undone"):
        chat.undo(3)


def test_a_turn_without_a_mark_is_undone_by_reading():
    used = assistant("visualrwkv6_tiny", "prompt=first")
    chat, long = used.chat(max_marks=1), used.chat()
    for question, images in (("what is it?", (IMAGE,)), ("why?", ()), ("how?", ())):
        assert chat.ask(question, *images, max_new_tokens=3) == long.ask(question, *images, max_new_tokens=3)
    chat.undo(2), long.undo(2)
    assert chat.state is None
    assert long.state is not None
    assert chat.ask("so?", max_new_tokens=4) == long.ask("so?", max_new_tokens=4)


def test_interleaved_conversations_do_not_hear_each_other():
    used = assistant("visualrwkv6_tiny")
    questions = [("what is it?", "why?"), ("who is it?", "how?"), ("where?", "when?")]
    images = [(IMAGE,), (OTHER,), ()]

    def replies(chats):
        """Texts of two turns of each conversation, whose tokens come by turns."""
        texts = [[] for _ in chats]
        for turn in range(2):
            streams = [
                chat.say(questions[number][turn], *(() if turn else images[number]), max_new_tokens=6)
                for number, chat in chats
            ]
            for _ in range(7):
                for found, stream in zip(texts, streams, strict=True):
                    found.append(next(stream, None))
        return texts

    together = replies([(number, used.chat()) for number in range(3)])
    alone = assistant("visualrwkv6_tiny", cache_bytes=0)
    assert together == [replies([(number, alone.chat())])[0] for number in range(3)]
    assert len({str(text) for text in together}) == 3


def test_ten_questions_about_an_image_encode_it_once():
    used = assistant("visualrwkv6_tiny", "prompt=first")
    encoded, fresh = [], assistant("visualrwkv6_tiny", "prompt=first", cache_bytes=0)
    used.model.modalities["image"].encoder.register_forward_pre_hook(lambda *_: encoded.append(1))
    tokens = used.model.modalities["image"].layout(*used.model.modalities["image"].image.size).tokens
    with Positions(used.model) as read:
        for number in range(10):
            question = "why? " * number + "what?"
            reply = used.ask(IMAGE.copy(), question, max_new_tokens=3)
            assert reply == fresh.ask(IMAGE, question, max_new_tokens=3)
    assert len(encoded) == 1
    rows = [len(asked_row(used.chat(), "why? " * number + "what?", IMAGE).ids) for number in range(10)]
    assert sum(rows) - 9 * tokens - 10 * 20 < read.count < sum(rows) - 9 * tokens + 10 * 3
    used.ask(OTHER, "what?", max_new_tokens=1)
    assert len(encoded) == 2
    assert len(used.reader.states) == 2


@pytest.mark.parametrize("card", ["last", "sandwich"])
def test_a_state_that_holds_the_question_is_not_shared(card):
    used = assistant("visualrwkv6_tiny", f"prompt={card}")
    for question in ("what?", "why?"):
        used.ask(IMAGE, question, max_new_tokens=1)
    assert (len(used.reader.states), len(used.reader.visual)) == (0, 1)


def test_changed_weights_are_noticed():
    used = assistant("visualrwkv6_tiny", "prompt=first")
    used.ask(IMAGE, "what?", max_new_tokens=1)
    [image] = used.reader.exchange(question_sample("what?", [IMAGE])).inputs
    before = used.reader.visual.get(image.key)
    with torch.no_grad():
        for parameter in used.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    fresh = Assistant(used.model, used.tokenizer, used.prompt)
    assert used.ask(IMAGE, "what?", max_new_tokens=5) == fresh.ask(IMAGE, "what?", max_new_tokens=5)
    assert len(used.reader.visual) == 1
    assert not torch.equal(before, used.reader.visual.get(image.key))


def test_a_dialogue_is_read_anew_with_other_weights():
    used = assistant("visualrwkv6_tiny", "prompt=first")
    chat = used.chat()
    chat.ask("what?", IMAGE, max_new_tokens=3)
    other = chat.branch()
    with torch.no_grad():
        used.model.backbone.norm.weight.mul_(1.5)
    for each in (chat, other):
        row = asked_row(each, "why?")
        with Positions(used.model) as read:
            each.ask("why?", max_new_tokens=1)
        assert read.count == len(row.ids)
        with Positions(used.model) as read:
            each.ask("how?", max_new_tokens=1)
        assert read.count < len(row.ids)


def test_threads_talk_as_each_does_alone():
    used = assistant("visualrwkv6_tiny", "prompt=first")

    def talk(number):
        chat = used.chat()
        return [
            chat.ask("why? " * number + question, *images, max_new_tokens=4)
            for question, images in (("what?", (IMAGE,)), ("and?", (OTHER,)))
        ]

    alone = [talk(number) for number in range(3)]
    used.reader.forget()
    with ThreadPoolExecutor(3) as pool:
        assert [*pool.map(talk, range(3))] == alone
    assert len({*map(str, alone)}) > 1


def test_a_reply_that_is_not_taken_to_its_end_leaves_no_trace():
    chat = assistant("visualrwkv6_tiny").chat()
    chat.ask("what is it?", IMAGE, max_new_tokens=4)
    turns, state = chat.turns, chat.state
    stream = chat.say("why?", max_new_tokens=4)
    next(stream)
    stream.close()
    assert [*chat.say("why?", max_new_tokens=0)] == []
    with Script(chat.reader.model, chat.reader.tokenizer.encode("\n\n")):
        assert chat.ask("why?", max_new_tokens=3) == ""
    with pytest.raises(ValueError, match="1 <image> for 0 images"):
        chat.say("<image> what?")
    assert (chat.turns, chat.state) == (turns, state)
    first, second = chat.say("why?", max_new_tokens=2), chat.say("how?", max_new_tokens=2)
    assert [*first][-1] == chat.turns[-1].text
    with pytest.raises(ValueError, match="the conversation has continued"):
        list(second)
    assert len(chat.turns) == 4


def test_a_seeded_reply_of_a_turn_is_drawn_again():
    chat = assistant("visualrwkv6_tiny").chat(system="Be brief.")
    chat.ask("what is it?", IMAGE, max_new_tokens=4)
    samplers = [Sampler(temperature=1.5, seed=seed) for seed in (1, 1, 2)]
    replies = [chat.branch().ask("why?", sampler=sampler, max_new_tokens=8) for sampler in samplers]
    assert replies[0] == replies[1] != replies[2]
    assert chat.branch().system == "Be brief."
    with pytest.raises(ValueError, match=r"max_marks \(-1\)"):
        assistant("visualrwkv6_tiny").chat(max_marks=-1)
