"""Tokens at the border of two turns: those that were read are those of the whole dialogue, for any tokenizer."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, trainers

from mmrnn.backbones import RWKV6
from mmrnn.inference.assistant import Assistant
from mmrnn.model.vlm import VLM
from mmrnn.prompts import Interleaved, RWKVChat, Template
from mmrnn.tokenizers import DemoTokenizer, HFTokenizer, RWKVWorldTokenizer
from tests.inference.scripted import Positions, Script, asked_row, reply_ids

EXCHANGES = (
    ("what is it?", "a cat。"),
    ("where…", "there…"),
    ("is it a cat，", "yes it is a cat，"),
    ("why？", "a 3.14"),
)


@pytest.fixture(scope="module")
def metaspace(tmp_path_factory):
    """Tokenizer that puts a space before every text, as Llama's; it merges across words and full stops."""
    made = Tokenizer(models.BPE(byte_fallback=False, unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    text = " ".join(f"USER: {question} ASSISTANT: {reply}" for question, reply in EXCHANGES)
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    made.train_from_iterator([text] * 3, trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return HFTokenizer(path=str(path), pad="<unk>")


def talk(tokenizer, prompt, replies=EXCHANGES):
    """Positions that each turn read, beside those that are new, and the number that each whole row has."""
    torch.manual_seed(0)
    model = VLM(RWKV6(vocab=tokenizer.vocab, width=16, depth=1, head_size=16), {}).eval()
    chat = Assistant(model, tokenizer, prompt).chat()
    for question, reply in replies:
        ids = reply_ids(chat, question, (), reply)
        row, before = asked_row(chat, question), chat.marks[-1].length if chat.marks else 0
        with Script(model, ids), Positions(model) as read:
            assert chat.ask(question, max_new_tokens=99) == reply
        assert read.count == len(row.ids) - before + len(ids) - 1
        yield len(chat.marks) == len(chat.exchanges) and chat.marks[-1].length == len(row.ids) + len(ids) - 1


@pytest.mark.parametrize("tokenizer", [RWKVWorldTokenizer, DemoTokenizer])
def test_full_stops_that_merge_with_the_end_of_a_turn(tokenizer):
    assert all(talk(tokenizer(), RWKVChat()))


def test_spaces_that_a_file_puts_before_a_text(metaspace):
    assert all(talk(metaspace, Template(system="")))


@pytest.mark.parametrize("tokenizer", [RWKVWorldTokenizer, DemoTokenizer])
def test_turns_that_are_joined_to_one_text(tokenizer):
    """The last token of a turn may become another one; what is before it is not read again."""
    assert len([*talk(tokenizer(), Interleaved(), EXCHANGES[:3])]) == 3


def test_a_reply_in_other_tokens_is_read_in_those_of_its_text():
    tokenizer = DemoTokenizer()
    torch.manual_seed(0)
    model = VLM(RWKV6(vocab=tokenizer.vocab, width=16, depth=1, head_size=16), {}).eval()
    chat = Assistant(model, tokenizer, RWKVChat()).chat()
    letters = [id for letter in " the cat\n\n" for id in tokenizer.encode(letter)]
    asked = asked_row(chat, "what?")
    with Script(model, letters):
        assert chat.ask("what?") == "the cat"
    assert chat.marks[-1].length == len(asked.ids) < len(letters) + len(asked.ids) - 1
    row = asked_row(chat, "so?")
    with Positions(model) as read:
        chat.ask("so?", max_new_tokens=1)
    assert read.count == len(row.ids) - len(asked.ids)
