"""Records and prompts as the original projects read them: ids and labels of LLaVA and of BLIP-2 with FlanT5."""

import importlib.util
from pathlib import Path

import pytest

from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.prompts import PrefixLM, Template, tokenize
from mmrnn.tokenizers import HFTokenizer
from mmrnn.types import IGNORE, SLOT, Layout, Turn

pytestmark = pytest.mark.golden

LLAVA = {"v1": "vicuna", "llava_llama_2": "llama2", "plain": "plain", "v0": "v0", "v0_marked": "v0_marked"}
MARKS = {"<im_start>": -201, "<im_end>": -202}
IMAGE = -200


def card(name, **knobs):
    return instantiate(plain(compose(config=f"prompt/{name}"))["prompt"] | knobs)


@pytest.fixture
def llava(golden, tmp_path):
    """`llava(name, added)`: the case and one of its tokenizers."""
    case, _ = golden("llava_preprocess")

    def read(name, added=()):
        if name == "tiny":
            path = tmp_path / "tokenizer.json"
            path.write_text(case["tokenizers"][name]["tokenizer_json"], encoding="utf-8")
            vocab = case["tokenizers"][name]["vocab"]
        else:
            found = importlib.util.find_spec("wordllama")
            if found is None:
                pytest.skip("wordllama, which ships Llama-2's tokenizer, is not installed")
            path = Path(found.origin).parent.parent / case["tokenizers"][name]["file"]
            vocab = 32000
        return case, HFTokenizer(path=str(path), vocab=vocab + len(added), added_tokens=tuple(added))

    return read


def dialogue(*texts):
    return [Turn(("user", "assistant")[index % 2], text) for index, text in enumerate(texts)]


def ids_of(row, names=None):
    return [IMAGE if id == SLOT else (names or {}).get(id, id) for id in row.ids]


def agrees(project, learnt, case):
    """Compare what is learnt with the case as its word `project` says."""
    if project == "subset":
        return set(case["intended"]) <= set(learnt) <= set(case["learnt"])
    return learnt == case["learnt" if project == "equal" else "intended"]


@pytest.mark.parametrize("form", LLAVA)
@pytest.mark.parametrize("name", ["tiny", "llama2"])
def test_llava_records(llava, form, name):
    case, tokenizer = llava(name, MARKS if form == "v0_marked" else ())
    marks = {tokenizer.encode(mark)[0]: id for mark, id in MARKS.items()} if form == "v0_marked" else {}
    prompt, compared = card(LLAVA[form]), 0
    for record in case["records"]:
        expected = record["templates"][form]
        project = expected["project"] if name == "tiny" else expected.get("project_llama2", expected["project"])
        if project not in ("equal", "ids", "subset", "intended"):
            continue
        turns = dialogue(*(turn["value"] for turn in record["conversations"]))
        row = tokenize(prompt.spans(turns, record["pictures"]), tokenizer, [Layout(prefix=1)] * record["pictures"])
        ids, wanted = ids_of(row, marks), expected[name]["ids"]
        if form.startswith("v0"):  # upstream begins with </s>, and ends with a blank behind the last ###
            ids, wanted = ids[1:], wanted[1 : len(ids)]
            assert len(expected[name]["ids"]) <= len(row.ids) + 1
        assert ids == wanted, record["name"]
        learnt = [position for position, label in enumerate(row.labels) if label != IGNORE]
        assert agrees(project, learnt, expected[name]), record["name"]
        compared += 1
    assert compared == sum(
        (one["templates"][form].get(f"project_{name}") or one["templates"][form]["project"])
        in ("equal", "ids", "subset", "intended")
        for one in case["records"]
    )


@pytest.mark.parametrize("name", ["tiny", "llama2"])
def test_llava_questions(llava, name):
    case, tokenizer = llava(name)
    for ask in case["asks"]:
        if ask["project"] != "equal":
            continue
        turns = dialogue(f"<image>\n{ask['turns'][0]}", *ask["turns"][1:], "")
        for form, expected in ask["templates"].items():
            spans = card(LLAVA[form]).spans(turns, 1)
            assert "".join("<image>" if span.image else span.text for span in spans) == expected["text"]
            assert ids_of(tokenize(spans, tokenizer, [Layout(prefix=1)])) == expected[name], (form, ask["turns"])


@pytest.fixture
def flan(golden, tmp_path):
    case, _ = golden("blip2_t5_text")
    path = tmp_path / "tokenizer.json"
    path.write_text(case["tokenizer"]["tokenizer_json"], encoding="utf-8")
    marks = {name: case["tokenizer"][name] for name in ("bos", "pad")} | {"eos": (case["tokenizer"]["eos"],)}
    return case, HFTokenizer(path=str(path), vocab=case["tokenizer"]["vocab"], **marks)


def test_flan_t5_questions(flan):
    case, tokenizer = flan
    queries = Layout(prefix=case["config"]["queries"])
    ours = card("blip2_t5")
    assert ours.first == "{images}" + case["prompts"][0]["form"].format("{words}")
    for one in case["prompts"]:
        form = "{images}" + one["form"].replace("{}", "{words}")
        prompt = Template(first=form, reply_prefix=ours.reply_prefix, image_separator="")
        row = tokenize(prompt.spans(dialogue(f"<image>{one['question']}", ""), 1), tokenizer, [queries])
        assert ids_of(row) == one["ids"], one["prompt"]
        assert row.labels == [IGNORE] * len(row.ids)


def test_a_dialogue_with_flan_t5_goes_to_the_encoder_whole(flan):
    case, tokenizer = flan
    whole = case["prompts"][-1]
    assert whole["prompt"] == "Question: Who? Short answer: me. Question: Why? Short answer:"
    row = tokenize(
        card("blip2_t5").spans(dialogue("<image>Who?", "me", "Why?", "so"), 1),
        tokenizer,
        [Layout(prefix=case["config"]["queries"])],
    )
    encoder = [id for id, label in zip(ids_of(row), row.labels, strict=True) if label == IGNORE]
    assert encoder == whole["ids"]
    assert [label for label in row.labels if label != IGNORE] == [*tokenizer.encode("so"), *tokenizer.ends]


def test_flan_t5_captions(flan, monkeypatch):
    case, tokenizer = flan
    prompt = card("blip2_t5_caption")
    queries = Layout(prefix=case["config"]["queries"])
    for half in case["halves"]:
        given, rest = half["text_input"].split(), half["text_output"].split()
        if not rest:
            continue  # one word at least is learnt
        cut = len(given)
        monkeypatch.setattr(PrefixLM, "_cut", staticmethod(lambda words, cut=cut: cut))
        row = tokenize(prompt.spans(dialogue("<image>", " ".join([*given, *rest])), 1), tokenizer, [queries])
        slots = [IMAGE] * case["config"]["queries"]
        assert ids_of(row) == [*slots, *half["encoder_ids"], *half["labels"]]
        assert [label for label in row.labels if label != IGNORE] == half["labels"]
        asked = tokenize(prompt.spans(dialogue(f"<image>{half['text_input']}", ""), 1), tokenizer, [queries])
        assert ids_of(asked) == [*slots, *half["encoder_ids"]]
