"""The forms of single designs, by their cards, beside what the original projects write."""

import re

import pytest
import torch

from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.prompts import insert_modality_slots, tokenize
from mmrnn.types import IGNORE, SLOT, Layout, Span, Tokenizer, Turn

pytestmark = pytest.mark.golden


def card(name, **knobs):
    return instantiate(plain(compose(config=f"prompt/{name}"))["prompt"] | knobs)


def written(spans, tag="<image>"):
    return "".join(tag if span.image else span.text for span in spans)


def dialogue(*texts):
    return [Turn(("user", "assistant")[index % 2], text) for index, text in enumerate(texts)]


class Bytes(Tokenizer):
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
    image = Layout(prefix=case["image_length"] + 2)
    one = case["prompts"][kind]
    turns = [text for pair in one["history"] for text in pair] + [one["query"], ""]
    spans = card(name).spans(dialogue(f"<image>\n{turns[0]}", *turns[1:]), 1)
    assert written(spans) == "<image>" + one["text_after_image"]
    ids = tokenize(spans, Bytes(3, (1,)), [image]).ids
    wanted = tensors[f"in/prompt_ids_{kind}"][0].tolist()
    assert [0 if id == SLOT else id for id in ids] == wanted


def test_cogvlm_training(golden):
    case, tensors = golden("cogvlm_expert")
    for row, sample in enumerate(case["train_samples"]):
        spans = card("cogvlm_chat").spans(dialogue(f"<image>\n{sample['query']}", sample["answer"]), 1)
        image = Layout(prefix=case["image_length"] + 2)
        row_ = tokenize(spans, Bytes(3, (1,), **{"</s>": 2}), [image])
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
    spans = prompt.spans(dialogue(("<image>" if shown else "") + turns[0], *turns[1:]), shown)
    assert written(spans, "") == ask["prompt_with_empty_image_tag"] + "[gMASK]<sop>"
    ids = tokenize(spans, GLM, [Layout(prefix=case["image_length"])] * shown).ids
    assert [3 if id == SLOT else id for id in ids] == tensors[f"in/ask_{number}_ids"].tolist()


def test_visualglm_training(golden):
    case, tensors = golden("visualglm")
    for number, sample in enumerate(case["train_samples"]):
        spans = card("glm").spans(dialogue(f"<image>{sample['prompt']}", sample["label"]), 1)
        row = tokenize(spans, GLM, [Layout(prefix=case["image_length"])])
        wanted = tensors["in/train_labels"][number]
        labels = [label for label in row.labels if label != IGNORE]
        assert labels == wanted[wanted != IGNORE].tolist()
        assert labels[0] == 2
        assert labels[-1] == 4


def test_qwen(golden):
    case, tensors = golden("qwen_visual")
    specials = case["toy_tokenizer"]["specials"]
    # The form writes the tags; what the case has in front of one is its template, with the number in it.
    shown = re.compile(r"([^\n]*)<img>.*?</img>(\n?)")
    texts = [shown.sub(r"<image>\2", turn["value"]) for turn in case["dialog"]]
    front = [match[1] for turn in case["dialog"] for match in shown.finditer(turn["value"])]
    forms = {re.sub(rf"\b{number}\b", "{number}", text) for number, text in enumerate(front, 1)}
    assert len(forms) == 1
    spans = card("qwen_vl", image_template=f"{forms.pop()}<img><image></img>").spans(dialogue(*texts), len(front))
    slots = case["toy_tokenizer"]["slots"]
    row = tokenize(spans, Bytes(0, **specials), [Layout(prefix=slots)] * len(front))
    wanted = tensors["in/chat_ids"][0]
    # Where the original writes the path of the image we keep slots; behind the last turn it has a line break.
    expected = wanted.clone()
    for opened in (wanted == specials["<img>"]).nonzero().flatten().tolist():
        expected[opened + 1 : opened + 1 + slots] = SLOT
    assert row.ids == expected[: len(row.ids)].tolist()
    assert set(expected[len(row.ids) + 1 :].tolist()) <= {specials["<|endoftext|>"]}
    ids, labels = torch.tensor(row.ids), torch.tensor(row.labels)
    # The answers and their ends are learnt. The released script also supervises the marks of the other turns.
    theirs = tensors["in/chat_labels"][0, : len(ids)]
    assert torch.equal(labels[labels != IGNORE], ids[labels != IGNORE])
    assert (theirs[labels != IGNORE] == labels[labels != IGNORE]).all()


def test_qwen_counts_images():
    turns = dialogue("<image> or <image>?", "the second")
    text = written(card("qwen_vl").spans(turns, 2), "*")
    assert "Picture 1: <img>*</img>\nPicture 2: <img>*</img>\nor ?" in text


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("minigpt_v2", "minigptv2"), ("minigpt4_vicuna0", "minigpt4"), ("minigpt4_llama2", "minigpt4_llama2")],
)
def test_minigpt_chats(golden, theirs, ours):
    case = golden("minigptv2")[0]["chat_prompts"][theirs]
    prompt, tag = card(ours), "<ImageHere>"
    first = prompt.spans(dialogue(f"<image>{case['question']}", ""), 1)
    second = prompt.spans(dialogue(f"<image>{case['question']}", case["answer"], case["question2"], ""), 1)
    start = "<s>" if theirs == "minigpt_v2" else ""  # the BOS is the tokenizer's
    assert start + written(first, tag) == case["first_turn_prompt"]
    chat = written(second, tag)
    if theirs == "minigpt_v2":  # a reply is closed in training, and not in the released chat
        chat = chat.replace(f"{case['answer']}</s>", case["answer"])
    assert start + chat == case["second_turn_prompt"]


def test_task_words(golden):
    case = golden("minigptv2")[0]["samples"]["sample_0"]
    _, task, question = re.fullmatch(r"(.*)\[(\w+)\] (.*?) ?", case["instruction_text"]).groups()
    spans = card(f"minigptv2_{task}").spans(dialogue(f"<image>{question}", ""), 1)
    # The released training text has one more blank before [/INST].
    assert written(spans, "<ImageHere>") == case["wrapped_prompt"].replace("  ", " ")


@pytest.mark.parametrize(("theirs", "ours"), [("v1", "vila"), ("llama_3", "vila_llama3"), ("hermes-2", "vila_hermes2")])
def test_vila(golden, theirs, ours):
    case = golden("vila_downsample")[0]["prompts"][theirs]
    spans = card(ours).spans(dialogue(case["question"], case["answer"], case["question2"], ""), 1)
    assert written(spans) == case["prompt"].removeprefix("<|begin_of_text|>")


def test_vila_leaves_images_where_they_are(golden):
    from mmrnn.prompts.image_position import place_images

    case = golden("vila_downsample")[0]
    for before, after in zip(case["chats"], case["chats_after_preprocess"], strict=True):
        for one, other in zip(before, after, strict=True):
            shown = one["value"].count("<image>")
            assert place_images([one["value"]], shown, "lines") == [other["value"]]
    assert place_images(["a <image> b <image>c"], 2, "lines") == ["a <image>\nb <image>\nc"]


def test_blip2_captions(golden):
    case, tensors = golden("blip2_opt_lavis")
    words = case["prompt"].strip()
    assert len(case["captions"]) == len(tensors["out/prompt_targets"])
    for number, caption in enumerate(case["captions"]):
        spans = card("blip2_opt_caption", first=f"{{images}}</s>{words}").spans(dialogue("<image>", caption), 1)
        row = tokenize(spans, Bytes(4, **{"</s>": 2}), [Layout(prefix=case["config"]["queries"])])
        targets = tensors["out/prompt_targets"][number]
        learnt = targets[targets != IGNORE].tolist()
        # There the caption alone is learnt, cut at 32 ids; here the words before it as well, which never change.
        start = len(row.ids) - len(caption) - 1
        assert row.ids[start : start + len(learnt)] == learnt
        assert written(spans) == f"<image></s>{words} {caption}\n"


def test_fuyu_and_flamingo():
    assert (
        written(card("fuyu").spans(dialogue("<image>\nWhat is it?", "A cup"), 1), "*")
        == "*<s>What is it?\n<0x04>A cup|ENDOFTEXT|"
    )
    two = card("flamingo").spans(dialogue("<image>a cat.<image>What?", "dogs"), 2)
    assert written(two, "*") == "*a cat.*What? dogs<|endofchunk|>"
    row = tokenize(two, Bytes(0), [Layout(cross_attention=5)] * 2)
    assert [block.start for block in row.image_spans] == [0, 13]
    assert bytes(row.ids).decode().startswith("<image>a cat.<image>What?")


def test_observations_of_other_modalities():
    spans = card("palm_e").spans(dialogue("Given <image> and <state>, what? <slot>", "a plan"), 1)
    marked = insert_modality_slots(spans, ("state",))
    assert [span.modality for span in marked if span.image] == [None, "state"]
    row = tokenize(marked, Bytes(0), [Layout(2, 2), Layout(prefix=3)])
    assert [(block.modality, block.layout.tokens) for block in row.image_spans] == [("image", 4), ("state", 3)]
    assert Span(", what? <slot> A:") in marked
