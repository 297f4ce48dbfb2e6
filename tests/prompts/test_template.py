"""Templates, by their cards, beside what the original projects' code writes."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import instantiate
from mmrnn.config.validate import check
from mmrnn.prompts import Template, tokenize
from mmrnn.types import IGNORE, SLOT, Layout, Span, Tokenizer, Turn


def card(name):
    """The prompt that a card describes."""
    file = OmegaConf.load(Path(conf_dir()) / "prompt" / f"{name}.yaml")
    parents = [parent for parent in file.pop("defaults", []) if parent != "_self_"]
    knobs = {} if not parents else OmegaConf.load(Path(conf_dir()) / "prompt" / f"{parents[0]}.yaml")
    return instantiate(OmegaConf.to_container(OmegaConf.merge(knobs, file)))


def written(spans, tag="<image>"):
    return "".join(tag if span.image else span.text for span in spans)


def dialogue(*texts):
    return [Turn(("user", "assistant")[index % 2], text) for index, text in enumerate(texts)]


class Bytes(Tokenizer):
    """The toy tokenizer of the golden case: BOS 1, `</s>` 2, any other byte b is b + 3."""

    vocab, pad, ends, starts = 262, 0, (2,), (1,)

    def encode(self, text):
        ids = []
        for index, part in enumerate(text.split("</s>")):
            ids += [2] * bool(index) + [byte + 3 for byte in part.encode()]
        return ids

    def decode(self, ids):
        return bytes(id - 3 for id in ids if id > 2).decode()


LLAVA = {"v0": "v0", "v1": "vicuna", "llava_llama_2": "llama2"}


@pytest.mark.golden
@pytest.mark.parametrize("theirs", LLAVA)
def test_prompts_equal_llava(golden, theirs):
    case = golden("llava_orig")[0]["prompts"][theirs]
    prompt = card(LLAVA[theirs])
    question, answer, again = f"<image>\n{case['question']}", case["answer"], case["question2"]
    assert written(prompt.spans(dialogue(question, ""), 1)) == case["generation_prompt"]
    assert written(prompt.spans(dialogue(question, answer, again, ""), 1)) == case["two_turn_prompt"]


@pytest.mark.golden
@pytest.mark.parametrize("theirs", ["mpt", "chatml_direct"])
def test_a_form_of_ones_own_is_a_matter_of_data(golden, theirs):
    case = golden("llava_orig")[0]["prompts"][theirs]
    system = case["generation_prompt"].partition("system\n")[2].partition("<|im_end|>")[0]
    user = "<|im_start|>user\n{text}<|im_end|><|im_start|>assistant\n"
    prompt = Template(
        system=system,
        first="<|im_start|>system\n{system}<|im_end|>" + user,
        user=user,
        reply="{text}<|im_end|>",
        stops=("<|im_end|>",),
    )
    turns = dialogue(f"{case['question']}\n<image>", case["answer"], case["question2"], "")
    assert written(prompt.spans(turns, 1)) == case["two_turn_prompt"]


@pytest.mark.golden
def test_ids_and_labels_equal_llava(golden):
    meta, tensors = golden("llava_orig")
    for index, sample in enumerate(meta["samples"].values()):
        turns = dialogue(*(turn["value"] for turn in sample["turns"]))
        shown = int("<image>" in turns[0].text)
        row = tokenize(card("vicuna").spans(turns, shown), Bytes(), [Layout(prefix=1)])
        padding = tensors["in/input_ids"].shape[1] - len(row.ids)
        assert row.ids + [0] * padding == tensors["in/input_ids"][index].tolist()
        assert row.labels + [IGNORE] * padding == tensors["in/labels"][index].tolist()


@pytest.mark.golden
def test_plain_captions_equal_llava(golden):
    meta, tensors = golden("llava_orig")
    turns = dialogue(*(turn["value"] for turn in meta["plain_sample"]))
    row = tokenize(card("plain").spans(turns, 1), Bytes(), [Layout(prefix=1)])
    assert row.ids == tensors["in/plain_ids"].tolist()
    assert row.labels == tensors["in/plain_labels"].tolist()
    assert SLOT in row.ids


@pytest.mark.golden
def test_minigpt_prompts_equal_the_original(golden):
    meta, _ = golden("minigptv2")
    case = meta["chat_prompts"]["minigpt4_vicuna0"]
    turns = dialogue(f"<image>{case['question']}", case["answer"], case["question2"], "")
    tag = "<ImageHere>"
    assert written(card("minigpt4").spans(turns[:2], 1), tag).startswith(case["first_turn_prompt"])
    assert written(card("minigpt4").spans(turns, 1), tag) == case["second_turn_prompt"]

    pairs, wrapped = meta["dialog"]["turns"], meta["dialog"]["wrapped_questions"]
    texts = [text for pair in pairs for text in pair]
    text = written(card("minigptv2").spans(dialogue(f"{texts[0]}<image>", *texts[1:]), 1), tag)
    answered = zip(wrapped, pairs, strict=True)
    assert text == "<s>".join(f"{question}{answer}</s>" for question, (_, answer) in answered)


def test_chatml_as_qwen_writes_it():
    spans = card("chatml").spans(dialogue("Hello <image>", "Hi.", "Bye", ""), 1)
    assert written(spans) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<image>\nHello<|im_end|>\n"
        "<|im_start|>assistant\nHi.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    )
    assert [span.text for span in spans if span.target] == ["Hi.<|im_end|>"]


def test_braces_in_what_is_said_are_text():
    prompt = Template(system="{}", first="{system} {text}>", user="{text}>", reply="{text}.")
    assert written(prompt.spans(dialogue("{text} {0}", "{x}"), 0)) == "{} {text} {0}>{x}."


def test_a_tag_without_image_is_text():
    assert Span(image=True) not in Template().spans(dialogue("<image> what?", "a"), 0)


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([Turn("assistant", "a")], "turn 1 is the assistant's"),
        (dialogue("a", "b")[:1] * 2, "turn 2 is the user's"),
        (dialogue("a", "", "b", "c"), "turn 2 is an empty reply"),
    ],
)
def test_turns_must_alternate(turns, message):
    with pytest.raises(ValueError, match=message):
        Template().spans(turns, 0)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"first": "{sytem} {text}"}, r"holds \{sytem\}"),
        ({"reply": "{answer}"}, r"holds \{answer\}"),
        ({"image_template": "<Img></Img>"}, "must hold <image> once"),
        ({"first": "{text:>3000000000}"}, r"first .* holds \{text:>3000000000\}; it may hold \{images\}"),
        ({"user": "{text!r}"}, r"user .* holds \{text!r\}"),
        ({"user": "{text:{words}}"}, r"user .* holds \{text:\{words\}\}"),
        ({"user": "{text.__class__}"}, r"user .* holds \{text\.__class__\}"),
        ({"user": "{system[0]}"}, r"user .* holds \{system\[0\]\}"),
        ({"past_reply": "{0}"}, r"past_reply .* holds \{0\}"),
        ({"reply": "{}"}, r"reply .* holds \{\}"),
        ({"reply": "{text"}, r"reply .* is no format string: .*; write a brace as \{\{ or \}\}"),
        ({"image_template": "{number:09d}<image>"}, r"image_template .* holds \{number:09d\}; it may hold \{number\}"),
    ],
)
def test_a_form_that_cannot_be_filled_is_refused_at_once(knobs, message):
    with pytest.raises(ValueError, match=message):
        Template(**knobs)


@pytest.mark.parametrize("name", ["prompt", "prompt.asking"])
def test_check_refuses_a_form_with_a_width(name):
    config = OmegaConf.to_container(compose("model=llava_tiny"), resolve=True)
    knobs = config["prompt"]["asking"] if name == "prompt.asking" else config["prompt"]
    knobs["first"] = "{text:>3000000000}"
    with pytest.raises(ConfigError, match=rf"{name}\.first: .* holds \{{text:>3000000000\}}; it may hold"):
        check(config)
