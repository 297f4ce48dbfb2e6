"""Forms of dialogues that other projects write, read to the same samples; and what is left out, counted by reason."""

import json
import os
from base64 import b64encode
from io import BytesIO

import pytest
from PIL import Image

from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.data import LLaVAJson
from mmrnn.data.left_out import LeftOut
from mmrnn.prompts import Interleaved, PrefixLM, RWKVChat, Template, tokenize
from mmrnn.tokenizers import HFTokenizer
from mmrnn.types import SLOT, Layout, Turn


def entry(role, text):
    return {"from": role, "value": text}


def message(role, content):
    return {"role": role, "content": content}


def text(words):
    return {"type": "text", "text": words}


@pytest.fixture
def read(tmp_path):
    """Reads records beside two images and a clip."""
    for name in ("p.png", "q.png"):
        Image.new("RGB", (4, 4), "red").save(tmp_path / name)

    def read(*records, **knobs):
        path = tmp_path / "data.json"
        path.write_text(json.dumps(records))
        return LLaVAJson(file=str(path), **knobs)

    return read


ASKED = (Turn("user", "<image>\nWhat?"), Turn("assistant", "A mug"))
TEXT = {"conversations": [entry("human", "Hi"), entry("gpt", "Hello")]}
LLAVA = {"image": "p.png", "conversations": [entry("human", "<image>\nWhat?"), entry("gpt", "A mug")]}
MESSAGES = [message("user", "<image>\nWhat?"), message("assistant", "A mug")]
URL = {"type": "image_url", "image_url": {"url": "p.png"}}


@pytest.mark.parametrize(
    "record",
    [
        LLAVA,
        {**LLAVA, "image": ["p.png"]},
        {"images": ["p.png"], "conversations": LLAVA["conversations"]},
        {"images": "p.png", "conversations": LLAVA["conversations"]},
        {
            "images": ["p.png"],
            "conversations": [entry("user", "<image>\nWhat?"), entry("assistant", "A mug")],
        },
        {"images": ["p.png"], "messages": MESSAGES},
        {"image": "p.png", "conversations": MESSAGES},
        {"messages": [message("user", [URL, text("What?")]), message("assistant", "A mug")]},
        {"messages": [message("user", [URL, text("What?")]), message("assistant", [text("A mug")])]},
        {"messages": [message("user", [{**URL, "image_url": "p.png"}, text("What?")]), MESSAGES[1]]},
        {"messages": [message("user", [{"type": "image", "image": "p.png"}, text("What?")]), MESSAGES[1]]},
        {"messages": [message("user", [{"type": "image", "path": "p.png"}, text("What?")]), MESSAGES[1]]},
        {"images": ["p.png"], "messages": [message("user", [{"type": "image"}, text("What?")]), MESSAGES[1]]},
        {"messages": [message("user", [{"type": "input_image", "image_url": "p.png"}, text("What?")]), MESSAGES[1]]},
    ],
)
def test_one_dialogue_in_many_forms(read, record):
    data = read(record)
    assert data[0].turns == ASKED
    assert [image.key for image in data[0].images] == ["p.png"]
    assert data.left_out() == []


def test_parts_of_several_turns(read):
    parts = [{"type": "image", "image": "q.png"}, text("or"), URL, text("?")]
    turns = [message("user", "Hello"), message("assistant", "Hi"), message("user", parts), message("assistant", "p")]
    data = read({"messages": turns})
    assert data[0].turns[2].text == "<image>\nor\n<image>\n?"
    assert [image.key for image in data[0].images] == ["q.png", "p.png"]


def test_an_image_in_the_record(read):
    buffer = BytesIO()
    Image.new("RGB", (3, 2), "blue").save(buffer, "PNG")
    url = "data:image/png;base64," + b64encode(buffer.getvalue()).decode()
    data = read(
        {"messages": [message("user", [{**URL, "image_url": {"url": url}}, text("What?")]), MESSAGES[1]]},
        {**LLAVA, "image": url},
        {**LLAVA, "image": "data:image/png;base64,???"},
    )
    assert [sample.images[0].open().getpixel((0, 0)) for sample in data] == [(0, 0, 255)] * 2
    assert len(list(data.images())) == 1
    assert data.left_out() == [("#2", "an image in the record is no base64")]


@pytest.mark.parametrize(
    "record",
    [
        {"system": "Be terse.", **LLAVA},
        {**LLAVA, "conversations": [entry("system", "Be terse."), *LLAVA["conversations"]]},
        {"image": "p.png", "messages": [message("developer", [text("Be terse.")]), *MESSAGES]},
    ],
)
def test_a_system_message_replaces_that_of_the_prompt(read, record):
    [sample] = read(record)
    assert sample.turns == (Turn("system", "Be terse."), *ASKED)
    written = {
        name: "".join(span.text or "<image>" for span in prompt.spans(sample.turns, 1))
        for name, prompt in {
            "own": Template(),
            "no field": Template(first="[INST] {text} [/INST]"),
            "no words": Template(first="{images}"),
            "rwkv": RWKVChat(),
            "prefix": PrefixLM(end=""),
            "pages": Interleaved(end=""),
        }.items()
    }
    assert written == {
        "own": "Be terse. USER: <image>\nWhat? ASSISTANT: A mug</s>",
        "no field": "Be terse.\n[INST] <image>\nWhat? [/INST] A mug</s>",
        "no words": "<image> A mug</s>",
        "rwkv": "System: Be terse.\n\nUser: <image>\nWhat?\n\nAssistant: A mug\n\n",
        "prefix": "<image></s>A mug",
        "pages": "Be terse.<image>What? A mug",
    }


BAD = [
    ({"image": "p.png", "images": ["p.png"]}, "a record must not have both image and images"),
    ({"images": []}, "tags and images differ in number"),
    ({"images": ["p.png", "q.png"]}, "tags and images differ in number"),
    ({"image_path": "p.png"}, "a tag <image> and no image: image_path is not read; its name must be image"),
    ({"image": "https://example.org/p.png"}, "image is in the network: download it and name the file"),
    ({"image": "p.png", "audios": ["a.wav"]}, "tags and audios differ in number"),
    ({"image": "p.png", "messages": MESSAGES}, "a record must not have both conversations and messages"),
    ({"image": "p.png", "system": 3}, "system must be text"),
    ({"image": "p.png", "system": "<image>"}, "a system message holds a tag"),
    ({"image": "\ud800.png"}, "half a character (a lone surrogate)"),
    ({"image": "p.png", "system": "\ud800"}, "half a character (a lone surrogate)"),
]


@pytest.mark.parametrize(("keys", "reason"), BAD)
def test_what_cannot_be_read_is_named(read, keys, reason):
    data = read(LLAVA, {"conversations": LLAVA["conversations"], **keys, "id": "bad"})
    assert data.left_out() == [("bad", reason)]
    assert data.skipped[0][1].startswith(reason)
    assert len(data) == 1


BAD_TURNS = [
    ([message("user", [URL, text("<image> What?")]), MESSAGES[1]], "a text beside an image in parts holds a tag"),
    ([message("user", "a"), message("assistant", [URL])], "an image or video belongs to a turn of the user"),
    ([message("user", [{"type": "image"}]), MESSAGES[1]], "parts and images differ in number"),
    ([message("user", [{"type": "audio"}]), MESSAGES[1]], "a part of a turn must be text, an image or a video"),
    ([message("user", ["a"]), MESSAGES[1]], "a part of a turn must be text, an image or a video"),
    ([message("user", [{"type": ["text"]}]), MESSAGES[1]], "a part of a turn must be text, an image or a video"),
    ([message("user", [{"type": "text"}]), MESSAGES[1]], "the text of a turn must be text"),
    ([message("user", [{"type": "image", "image": {}}]), MESSAGES[1]], "parts and images differ in number"),
    ([message("user", [{"type": "image", "image": 3}]), MESSAGES[1]], "image must be the name of a file"),
    ([message("user", "a"), message("system", "b"), MESSAGES[1]], "a system message must come first"),
    ([message("system", "b"), message("system", "b"), *MESSAGES], "a system message must come first"),
    ([message("user", "a"), message("user", "b"), MESSAGES[1]], "user and assistant must alternate"),
    ([message("user", "a"), {**MESSAGES[1], "tool_calls": [{}]}], "a turn calls a tool"),
    ([message("user", "a"), {**MESSAGES[1], "weight": 0}], "a reply is not to be trained on: its weight is 0"),
    ([message("user", "a"), message("assistant", ""), *MESSAGES], "a reply is empty"),
]


@pytest.mark.parametrize(("turns", "reason"), BAD_TURNS)
def test_turns_that_cannot_be_read_are_named(read, turns, reason):
    data = read(LLAVA, {"messages": turns})
    assert data.left_out() == [("#1", reason)]
    assert len(data) == 1


def test_reasons_are_counted_with_the_first_id(read):
    """One reason for every record with a fault, whatever its names and numbers are."""
    bad = [{**LLAVA, "id": f"a{number}", "image": f"../{number}.png"} for number in range(30)]
    data = read(LLAVA, *bad, *({"id": f"b{n}", "images": ["p.png"] * n, "messages": MESSAGES} for n in (2, 3)))
    assert LeftOut.of(data.left_out()).reasons == {
        "image is outside the folder of the images": (30, "a0"),
        "tags and images differ in number": (2, "b2"),
    }


def test_half_a_character_in_an_id_costs_the_name_only(read):
    assert [sample.id for sample in read({"id": "\ud800", **LLAVA}, {"id": [1], **LLAVA})] == ["#0", "#1"]


@pytest.mark.skipif(os.name == "nt", reason="there a colon ends a drive")
def test_a_colon_is_part_of_a_name(read, tmp_path):
    names = ["a:b.png", "12:30.png", "x:1/y.png"]
    (tmp_path / "x:1").mkdir()
    for name in names:
        Image.new("RGB", (4, 4), "red").save(tmp_path / name)
    data = read(*({**LLAVA, "image": name} for name in [*names, "C:\\p.png", "a:..\\..\\p.png"]), verify=True)
    assert [sample.images[0].open().size for sample in data] == [(4, 4)] * 3
    assert [reason for _, reason in data.left_out()] == ["image is outside the folder of the images"] * 2


def test_absolute_paths_are_a_choice(read, tmp_path):
    path = str(tmp_path / "p.png")
    records = [
        LLAVA,
        *({**LLAVA, "image": name} for name in (path, f"file://{path}", f"{tmp_path}/../x.png", "C:\\p.png")),
    ]
    outside = "image is outside the folder of the images"
    cure = "; to allow absolute paths, set absolute_paths=true"
    assert [reason for _, reason in read(*records).left_out()] == [f"{outside}{cure}"] * 3 + [outside]
    data = read(*records, absolute_paths=True, holdout=0.0)
    assert [sample.images[0].open().size for sample in data] == [(4, 4)] * 3
    assert [name for name, _ in data.left_out()] == ["#3", "#4"]


def test_a_name_of_any_length_costs_its_record(read):
    data = read(LLAVA, {**LLAVA, "image": "a" * 300 + ".png"}, {**LLAVA, "image": "a\0.png"}, verify=True)
    assert len(data) == 1
    assert data.left_out() == [("#1", "image is not in the folder"), ("#2", "image is not in the folder")]


def test_the_way_to_rgb_is_a_choice(read, tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    record = {**LLAVA, "image": "clear.png"}
    shown = [read(record, decoding=way)[0].images[0].open().getpixel((0, 0)) for way in ("composed", "convert")]
    assert shown == [(255, 255, 255), (255, 0, 0)]


@pytest.mark.golden
@pytest.mark.parametrize(("form", "card"), [("v1", "vicuna"), ("llava_llama_2", "llama2")])
def test_a_turn_is_dropped_where_llava_drops_it(golden, tmp_path, form, card):
    """The assistant begins: LLaVA leaves out this turn and keeps the record."""
    case, _ = golden("llava_preprocess")
    (tmp_path / "tokenizer.json").write_text(case["tokenizers"]["tiny"]["tokenizer_json"])
    (tmp_path / "p.png").touch()
    [record] = [record for record in case["records"] if record["name"] == "assistant begins"]
    file = tmp_path / "data.json"
    file.write_text(json.dumps([{"image": "p.png", "conversations": record["conversations"]}]))
    [sample] = data = LLaVAJson(file=str(file))
    assert data.left_out() == [("#0", "the assistant begins: this turn is left out")]
    tokenizer = HFTokenizer(path=str(tmp_path / "tokenizer.json"), vocab=case["tokenizers"]["tiny"]["vocab"])
    prompt = instantiate(plain(compose(f"prompt={card}"))["prompt"])
    row = tokenize(prompt.spans(sample.turns, 1), tokenizer, [Layout(rows=1, cols=1)])
    wanted = record["templates"][form]["tiny"]
    assert [-200 if id == SLOT else id for id in row.ids] == wanted["ids"]
    assert [index for index, label in enumerate(row.labels) if label >= 0] == wanted["learnt"]


TAKEN = {"system turn": "a system turn of a record", "assistant begins": "the assistant's first turn alone is left out"}
"""Records of the golden cases that are left out there and read since."""


@pytest.mark.golden
@pytest.mark.parametrize(("case", "parts"), [("llava_preprocess", "templates"), ("visualrwkv6_dialogue", "positions")])
def test_records_of_the_originals(golden, tmp_path, case, parts):
    """Every record that `left_out` does not name is read as it stands."""
    records = golden(case)[0]["records"]
    left_out = 0
    for record in records:
        files = [f"{number}.png" for number in range(record["pictures"])]
        images = {} if not files else {"image": files[0] if len(files) == 1 else files}
        file = tmp_path / "data.json"
        file.write_text(json.dumps([TEXT, {"conversations": record["conversations"], **images}]))
        data = LLaVAJson(file=str(file))
        expected = any(form.get("project") == "left out" for form in record[parts].values())
        if expected and record["name"] not in TAKEN:
            left_out += 1
            assert len(data) == len(data.skipped) == 1, record["name"]
            continue
        sample = data[1]
        assert [image.key for image in sample.images] == files
        if record["name"] not in TAKEN:
            assert [turn.text for turn in sample.turns] == [turn["value"] for turn in record["conversations"]]
    assert left_out >= 3


def test_an_empty_id_is_none(read):
    content = {"id": "", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    assert [sample.id for sample in read(content, content)] == ["#0", "#1"]
