"""Random dialogues: the ids of the parts are the ids of the whole text, and the targets are the replies."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers

from mmrnn.prompts import Template, tokenize
from mmrnn.tokenizers import DemoTokenizer, HFTokenizer, RWKVWorldTokenizer
from mmrnn.types import IGNORE, Layout, Turn

pytestmark = pytest.mark.slow
LETTERS = "abcABC .:#,?\n[]"
utterances = st.text(LETTERS, min_size=1, max_size=30).filter(str.strip)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A file like Llama-2's, with the words `▁a`, `▁b`, `ab`, `##` and `###`."""
    path = tmp_path_factory.mktemp("text") / "tokenizer.json"
    pieces = ["<unk>", "<s>", "</s>", "▁", *LETTERS.replace(" ", ""), "▁a", "▁b", "ab", "##", "###"]
    pieces += sorted(set("USERHumansitN") - set(pieces))
    merges = [("▁", "a"), ("▁", "b"), ("a", "b"), ("#", "#"), ("##", "#")]
    model = models.BPE({name: id for id, name in enumerate(pieces)}, merges, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.save(str(path))
    return HFTokenizer(path=str(path))


@settings(deadline=None, derandomize=True, max_examples=300)
@given(texts=st.lists(utterances, min_size=2, max_size=8))
def test_parts_and_whole(llama, texts):
    """By a format whose turns end in a special token, as Vicuna's: no token crosses from one turn to the next."""
    texts = texts[: len(texts) // 2 * 2]
    turns = [Turn(("user", "assistant")[index % 2], text.strip()) for index, text in enumerate(texts)]
    spans = Template(system="abc").spans(turns, 0)
    row = tokenize(spans, llama)
    assert row.ids == [*llama.starts, *llama.encode("".join(span.text for span in spans))]
    learnt = llama.decode([id for id in row.labels if id not in (IGNORE, *llama.ends)])
    assert learnt.split() == llama.decode(llama.encode(" ".join(turn.text for turn in turns[1::2]))).split()


@settings(deadline=None, derandomize=True, max_examples=300)
@given(before=utterances, text=utterances)
def test_behind_an_image_a_text_is_by_itself(llama, before, text):
    turns = [Turn("user", f"{before}<image>{text}"), Turn("assistant", "")]
    prompt = Template(first="{text}", image_position="inline")
    row = tokenize(prompt.spans(turns, 1), llama, [Layout(prefix=1)])
    assert row.ids == [*llama.starts, *llama.encode(before), -200, *llama.encode(text)]


@settings(deadline=None, derandomize=True, max_examples=300)
@given(text=st.text(max_size=60).filter(lambda text: not re.search("[\ud800-\udfff]", text)))
def test_any_text_comes_back_without_special_ids(text):
    for tokenizer in (DemoTokenizer(), RWKVWorldTokenizer()):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert 0 not in ids


@settings(deadline=None, derandomize=True, max_examples=300)
@given(template=st.text("{}!:.[]0textwordsimages<>", max_size=20))
def test_a_format_writes_or_is_refused(template):
    try:
        prompt = Template(first=template)
    except ValueError:
        return
    text = "".join(span.text for span in prompt.spans([Turn("user", "hello")], 0))
    assert len(text) <= len(template) + 200
