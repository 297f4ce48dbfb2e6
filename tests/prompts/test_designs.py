"""The forms of single designs, by their cards, beside what the original projects write."""

import re

import pytest
import torch

from mmrnn.config import compose, make, plain
from mmrnn.data import Turn
from mmrnn.prompts import Piece, observe, tokenize
from mmrnn.types import IGNORE, SLOT, Layout

pytestmark = pytest.mark.golden


def card(name):
    return make(plain(compose(config=f"prompt/{name}"))["prompt"])


def written(pieces, tag="<image>"):
    return "".join(tag if piece.picture else piece.text for piece in pieces)


def dialogue(*texts):
    return [Turn(("user", "assistant")[index % 2], text) for index, text in enumerate(texts)]


class Bytes:
    """A byte and what is added to it, with the strings that have an id of their own."""

    vocab, pad, ends, starts = 400, 0, (2,), ()

    def __init__(self, shift, starts=(), **specials):
        self.shift, self.starts, self.specials = shift, starts, specials

    def encode(self, text):
        for name, id in self.specials.items():
            if name in text:
                before, _, after = text.partition(name)
                return [*self.encode(before), id, *self.encode(after)]
        return [byte + self.shift for byte in text.encode()]

    def decode(self, ids):
        return bytes(id - self.shift for id in ids if id >= self.shift and id - self.shift < 256).decode()


@pytest.mark.parametrize(
    ("kind", "name"),
    [("base", "cogvlm_base"), ("chat", "cogvlm_chat"), ("vqa", "cogvlm_vqa"), ("chat_old", "cogvlm_old")],
)
def test_cogvlm(golden, kind, name):
    case, tensors = golden("cogvlm_expert")
    picture = Layout(prefix=case["image_length"] + 2)
    one = case["prompts"][kind]
    turns = [text for pair in one["history"] for text in pair] + [one["query"], ""]
    pieces = card(name).pieces(dialogue(f"<image>\n{turns[0]}", *turns[1:]), 1)
    assert written(pieces) == "<image>" + one["text_after_image"]
    ids = tokenize(pieces, Bytes(3, (1,)), [picture]).ids
    wanted = tensors[f"in/prompt_ids_{kind}"][0].tolist()
    assert [0 if id == SLOT else id for id in ids] == wanted


def test_cogvlm_training(golden):
    case, tensors = golden("cogvlm_expert")
    for row, sample in enumerate(case["train_samples"]):
        pieces = card("cogvlm_chat").pieces(dialogue(f"<image>\n{sample['query']}", sample["answer"]), 1)
        picture = Layout(prefix=case["image_length"] + 2)
        row_ = tokenize(pieces, Bytes(3, (1,), **{"</s>": 2}), [picture])
        labels = [label for label in row_.labels if label != IGNORE]
        wanted = tensors["in/labels"][row]
        assert labels == wanted[wanted != IGNORE].tolist()
        ids = [0 if id == SLOT else id for id in row_.ids]
        assert ids == tensors["in/input_ids"][row, : len(ids)].tolist()


GLM = Bytes(5, **{"[gMASK]": 1, "<sop>": 2, "<eop>": 4})


@pytest.mark.parametrize("number", [0, 1, 2])
def test_visualglm(golden, number):
    case, tensors = golden("visualglm")
    ask = case["asks"][number]
    prompt = card("glm_english" if ask["english"] else "glm")
    turns = [text for pair in ask["history"] for text in pair] + [ask["query"], ""]
    shown = int(ask["has_image"])
    pieces = prompt.pieces(dialogue(("<image>" if shown else "") + turns[0], *turns[1:]), shown)
    assert written(pieces, "") == ask["prompt_with_empty_image_tag"] + "[gMASK]<sop>"
    ids = tokenize(pieces, GLM, [Layout(prefix=case["image_length"])] * shown).ids
    assert [3 if id == SLOT else id for id in ids] == tensors[f"in/ask_{number}_ids"].tolist()


def test_visualglm_training(golden):
    case, tensors = golden("visualglm")
    for number, sample in enumerate(case["train_samples"]):
        pieces = card("glm").pieces(dialogue(f"<image>{sample['prompt']}", sample["label"]), 1)
        row = tokenize(pieces, GLM, [Layout(prefix=case["image_length"])])
        wanted = tensors["in/train_labels"][number]
        labels = [label for label in row.labels if label != IGNORE]
        assert labels == wanted[wanted != IGNORE].tolist()
        assert labels[0] == 2
        assert labels[-1] == 4


def test_qwen(golden):
    case, tensors = golden("qwen_visual")
    specials = case["toy_tokenizer"]["specials"]
    # The card counts the pictures and writes their tags.
    said = [re.sub(r"Picture \d+: <img>.*?</img>\n", "<image>\n", turn["value"]) for turn in case["dialog"]]
    turns = dialogue(*said)
    pieces = card("qwen_vl").pieces(turns, 1)
    row = tokenize(pieces, Bytes(0, **specials), [Layout(prefix=case["toy_tokenizer"]["slots"])])
    wanted = tensors["in/chat_ids"][0]
    # Where the original writes the path of the picture we keep slots; behind the last turn it has a line break.
    opened = (wanted == specials["<img>"]).int().argmax().item() + 1
    expected = wanted.clone()
    expected[opened : opened + case["toy_tokenizer"]["slots"]] = SLOT
    assert row.ids == expected[: len(row.ids)].tolist()
    assert set(expected[len(row.ids) + 1 :].tolist()) <= {specials["<|endoftext|>"]}
    ids, labels = torch.tensor(row.ids), torch.tensor(row.labels)
    # The answers and their ends are learnt. The released script also supervises the marks of the other turns.
    theirs = tensors["in/chat_labels"][0, : len(ids)]
    assert torch.equal(labels[labels != IGNORE], ids[labels != IGNORE])
    assert (theirs[labels != IGNORE] == labels[labels != IGNORE]).all()


def test_qwen_counts_pictures():
    turns = dialogue("<image> or <image>?", "the second")
    text = written(card("qwen_vl").pieces(turns, 2), "*")
    assert "Picture 1: <img>*</img>\nPicture 2: <img>*</img>\nor ?" in text


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("minigpt_v2", "minigptv2"), ("minigpt4_vicuna0", "minigpt4"), ("minigpt4_llama2", "minigpt4_llama2")],
)
def test_minigpt_chats(golden, theirs, ours):
    case = golden("minigptv2")[0]["chat_prompts"][theirs]
    prompt, tag = card(ours), "<ImageHere>"
    first = prompt.pieces(dialogue(f"<image>{case['question']}", ""), 1)
    second = prompt.pieces(dialogue(f"<image>{case['question']}", case["answer"], case["question2"], ""), 1)
    start = "<s>" if theirs == "minigpt_v2" else ""  # the BOS is the tokenizer's
    assert start + written(first, tag) == case["first_turn_prompt"]
    said = written(second, tag)
    if theirs == "minigpt_v2":  # a reply is closed in training, and not in the released chat
        said = said.replace(f"{case['answer']}</s>", case["answer"])
    assert start + said == case["second_turn_prompt"]


def test_task_words(golden):
    case = golden("minigptv2")[0]["samples"]["sample_0"]
    _, task, question = re.fullmatch(r"(.*)\[(\w+)\] (.*?) ?", case["instruction_text"]).groups()
    pieces = card(f"minigptv2_{task}").pieces(dialogue(f"<image>{question}", ""), 1)
    # The released training text has one more blank before [/INST].
    assert written(pieces, "<ImageHere>") == case["wrapped_prompt"].replace("  ", " ")


@pytest.mark.parametrize(("theirs", "ours"), [("v1", "vila"), ("llama_3", "vila_llama3"), ("hermes-2", "vila_hermes2")])
def test_vila(golden, theirs, ours):
    case = golden("vila_downsample")[0]["prompts"][theirs]
    pieces = card(ours).pieces(dialogue(case["question"], case["answer"], case["question2"], ""), 1)
    assert written(pieces) == case["prompt"].removeprefix("<|begin_of_text|>")


def test_vila_leaves_pictures_where_they_are(golden):
    from mmrnn.prompts.place import place

    case = golden("vila_downsample")[0]
    for before, after in zip(case["chats"], case["chats_after_preprocess"], strict=True):
        for one, other in zip(before, after, strict=True):
            shown = one["value"].count("<image>")
            assert place([one["value"]], shown, "lines") == [other["value"]]
    assert place(["a <image> b <image>c"], 2, "lines") == ["a <image>\nb <image>\nc"]


def test_blip2_captions(golden):
    case, tensors = golden("blip2_opt_lavis")
    for number, caption in enumerate(case["captions"]):
        pieces = card("blip2_opt_caption").pieces(dialogue("<image>", caption), 1)
        row = tokenize(pieces, Bytes(4, **{"</s>": 2}), [Layout(prefix=case["config"]["queries"])])
        targets = tensors["out/prompt_targets"][number]
        learnt = targets[targets != IGNORE].tolist()
        # There the caption alone is learnt, cut at 32 ids; here the words before it as well, which never change.
        start = len(row.ids) - len(caption) - 1
        assert row.ids[start : start + len(learnt)] == learnt
        assert written(pieces) == f"<image></s>{case['prompt']}{caption}\n"


def test_fuyu_and_flamingo():
    assert (
        written(card("fuyu").pieces(dialogue("<image>\nWhat is it?", "A cup"), 1), "*")
        == "*<s>What is it?\n<0x04>A cup|ENDOFTEXT|"
    )
    two = card("flamingo").pieces(dialogue("<image>a cat.<image>What?", "dogs"), 2)
    assert written(two, "*") == "*a cat.*What? dogs<|endofchunk|>"
    row = tokenize(two, Bytes(0), [Layout(beside=5)] * 2)
    assert [block.start for block in row.blocks] == [0, 13]
    assert bytes(row.ids).decode().startswith("<image>a cat.<image>What?")


def test_observations_of_other_senses():
    pieces = card("palm_e").pieces(dialogue("Given <image> and <state>, what? <slot>", "a plan"), 1)
    marked = observe(pieces, ("state",))
    assert [piece.sense for piece in marked if piece.picture] == [None, "state"]
    row = tokenize(marked, Bytes(0), [Layout(2, 2), Layout(prefix=3)])
    assert [(block.sense, block.layout.tokens) for block in row.blocks] == [("image", 4), ("state", 3)]
    assert Piece(", what? <slot> A:") in marked
