"""Text to ids and back."""

import pickle
import random
import sys

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from mmrnn.tokenizers import DemoTokenizer, HFTokenizer, RWKVWorldTokenizer, rwkv_world
from mmrnn.types import Tokenizer as Contract

TEXTS = [
    "",
    "Hello\n\nWorld",
    "naïve café 桌子 🙂👍🏽",
    "\0\x01\x7f",
    "a\tb\r\nc",
    "User: what kind?\n\nAssistant: animal\n\n",
]


@pytest.mark.golden
def test_world_equals_the_original(golden):
    for case in golden("text")[0]["tokenizer"]:
        assert RWKVWorldTokenizer().encode(case["text"]) == case["ids"]
        assert RWKVWorldTokenizer().decode(case["ids"]) == case["text"]


@pytest.mark.parametrize("tokenizer", [RWKVWorldTokenizer(), DemoTokenizer()], ids=["world", "small"])
def test_any_text_comes_back(tokenizer):
    rng = random.Random(0)
    noise = ["".join(chr(rng.choice([rng.randrange(128), rng.randrange(0xE000, 0x10FFFF)])) for _ in range(40))]
    for text in TEXTS + noise:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(0 < id < tokenizer.vocab for id in ids)


@pytest.mark.parametrize("tokenizer", [RWKVWorldTokenizer(), DemoTokenizer()], ids=["world", "small"])
def test_ids_that_say_nothing_and_half_a_character_do_not_swallow_the_rest(tokenizer):
    ids = tokenizer.encode("left 🙂")
    assert tokenizer.decode([0, *ids, 0, tokenizer.vocab - 1 if tokenizer.vocab > 2000 else 5000, -200]) == "left 🙂"
    emoji = [byte + 1 for byte in "🙂".encode()]
    assert tokenizer.decode([*emoji[:2], *tokenizer.encode("left")]) == "\ufffdleft"


@pytest.mark.parametrize("tokenizer", [RWKVWorldTokenizer(), DemoTokenizer()], ids=["world", "small"])
def test_contract_and_pickling(tokenizer):
    assert isinstance(tokenizer, Contract)
    assert tokenizer.pad == 0
    assert tokenizer.ends == (0, *tokenizer.encode("\n\n"))
    assert pickle.loads(pickle.dumps(tokenizer)).encode("User: hi") == tokenizer.encode("User: hi")


def test_the_labels_of_world_can_be_cut_off_anywhere():
    """No token goes across the colon of `Assistant: …`, so label and reply may be tokenised apart."""
    table = rwkv_world._table()
    assert len(table) == 65529
    assert not [token for token in table.values() if token.startswith(b": ")]


def test_small_takes_the_longest_piece():
    small = DemoTokenizer()
    assert small.encode("User: what kind of thing?\n\nAssistant: animal\n\n") == [
        *(small.encode(piece)[0] for piece in ("User:", " what", " kind", " of", " thing", "?", "\n\n", "Assistant:")),
        *(small.encode(piece)[0] for piece in (" animal", "\n\n")),
    ]
    assert small.encode("é") == [0xC3 + 1, 0xA9 + 1]


def test_world_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyrwkv_tokenizer", None)
    rwkv_world._core.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'mmrnn\[text\]'"):
        RWKVWorldTokenizer().encode("a")


@pytest.fixture
def file(tmp_path):
    """A tokenizer.json built like Llama-2's: a blank in front of every text, saved while padding and cutting."""
    letters = ["<unk>", "<s>", "</s>", *"▁abAB:.", "▁a", "▁b"]
    model = models.BPE({name: id for id, name in enumerate(letters)}, [("▁", "a"), ("▁", "b")], unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in ("<unk>", "<s>", "</s>")])
    tokenizer.enable_padding(length=50)
    tokenizer.enable_truncation(2)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return str(tmp_path / "tokenizer.json")


def test_a_file_gives_a_reply_the_ids_it_has_in_the_whole_text(file):
    tokenizer = HFTokenizer(path=file)
    assert isinstance(tokenizer, Contract)
    parts = ["A:", " a b.</s>", "B:a", "b:", " a"]
    whole = tokenizer.encode("".join(parts))
    after = [tokenizer.encode_after(before, text) for before, text in zip(["", *parts], parts, strict=False)]
    assert [id for ids in after for id in ids] == whole
    assert tokenizer.decode(whole) == "A: a b. B:ab: a"
    assert tokenizer.encode(" a") == [3, *tokenizer.encode("a")], "a text by itself keeps its blank, and gets another"
    assert HFTokenizer(path=file, prefix_space=False).encode_after("A:", " a") == tokenizer.encode(" a")


def test_a_token_in_two_texts_is_cut_where_they_meet(file):
    """`▁a` lies in both: the second is encoded by itself."""
    tokenizer = HFTokenizer(path=file)
    assert tokenizer.encode_after("A: ", "a") == tokenizer.encode("a")


def test_special_tokens_of_a_file(file):
    tokenizer = HFTokenizer(path=file)
    assert (tokenizer.starts, tokenizer.ends, tokenizer.pad) == ((1,), (2,), 0)
    other = HFTokenizer(path=file, bos=None, pad=None, eos=("</s>", "<s>"))
    assert (other.starts, other.ends, other.pad) == ((), (2, 1), 2)
    assert tokenizer.decode([1, *tokenizer.encode("a"), 2, -100, 40000]) == "a"


def test_words_that_are_added(file):
    tokenizer = HFTokenizer(path=file, vocab=14, added_tokens=("<im_start>", "<im_end>"))
    assert tokenizer.encode("<im_start>a<im_end>") == [12, *HFTokenizer(path=file).encode("a"), 13]
    assert tokenizer.decode([12, *tokenizer.encode("a"), 13]) == "a"
    assert tokenizer.encode("b <im_start>\n a") == [*tokenizer.encode("b"), 12, *tokenizer.encode("a")]
    with pytest.raises(ValueError, match=r"ids up to 13, more than tokenizer.vocab \(12\)"):
        HFTokenizer(path=file, vocab=12, added_tokens=("<im_start>", "<im_end>")).encode("a")


def test_nothing_is_read_before_it_is_needed_and_then_the_fault_is_said(file, tmp_path):
    HFTokenizer(path="/nowhere.json")
    (tmp_path / "no.json").write_text("[")
    for knobs, message in (
        ({}, "tokenizer.path is not set"),
        ({"path": "/nowhere.json"}, r"tokenizer.path \(/nowhere.json\) cannot be read"),
        ({"path": str(tmp_path / "no.json")}, "cannot be read"),
        ({"path": file, "eos": ("<end>",)}, r"tokenizer.eos \('<end>'\) is no token of"),
        ({"path": file, "vocab": 5}, r"ids up to 11, more than tokenizer.vocab \(5\)"),
    ):
        with pytest.raises(ValueError, match=message):
            _ = HFTokenizer(**knobs).ends


def test_a_file_survives_the_way_to_a_worker(file):
    tokenizer = HFTokenizer(path=file)
    ids = tokenizer.encode("a b")
    assert pickle.loads(pickle.dumps(tokenizer)).encode("a b") == ids
