"""Captions beside pycocoevalcap called by itself, on lines that its tokenizer could lose."""

import random
import shutil
import sys

import pytest

from mmrnn.evaluation.metrics.captions import captions
from mmrnn.evaluation.metrics.items import TextItem
from tests.evaluation import java

WORDS = [
    "a",
    "the",
    "red",
    "blue",
    "dog",
    "cat",
    "sits",
    "stands",
    "on",
    "under",
    "small",
    "table's",
    "grass,",
    "near",
    "two",
    "men",
]


def caption(draw):
    return " ".join(draw.choices(WORDS, k=draw.randint(4, 9))) + draw.choice(("", ".", "!"))


@pytest.fixture(params=["java", "stand-in"])
def tokenizer(request, tmp_path, monkeypatch):
    """Program that the package starts; all but what it does inside is tested without Java, too."""
    if request.param == "stand-in":
        java.put_in_place(tmp_path, monkeypatch)
    else:
        java.need()


@pytest.fixture(scope="module")
def many():
    draw, items = random.Random(0), []
    for n in range(100):
        truths = tuple(caption(draw) for _ in range(draw.randint(2, 6)))
        reply = f"{truths[0]} {draw.choice(WORDS)}" if n % 2 else caption(draw)
        items.append(TextItem(id=f"question {n}", reply=reply, truths=truths))
    return items


def test_a_hundred_captions_score_as_by_the_package(tokenizer, many):
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenise = PTBTokenizer().tokenize
    truths = tokenise({item.id: [{"caption": text} for text in item.truths] for item in many})
    replies = tokenise({item.id: [{"caption": item.reply}] for item in many})
    cider, each = Cider().compute_score(truths, replies)
    bleu, _ = Bleu(4).compute_score(truths, replies)
    rouge, _ = Rouge().compute_score(truths, replies)

    found = captions(many)
    expected = {"cider": cider, **{f"bleu_{n}": bleu[n - 1] for n in range(1, 5)}, "rouge_l": rouge}
    assert found.summary == pytest.approx(expected, abs=1e-9)
    assert list(found.by_id.values()) == pytest.approx(list(each), abs=1e-9)
    assert 0.05 < found.summary["bleu_4"] < 0.9


def test_no_reply_is_lost_or_shifts_those_behind_it(tokenizer, many):
    odd = ["", "a dog\r\nsits", "a\u2028dog", "\n\n", "\ud800", "dog " * 2500, ""]
    empty = [TextItem(id=f"odd {n}", reply=reply, truths=("two men near grass",)) for n, reply in enumerate(odd)]
    mixed = [*empty[:4], *many[:5], *empty[4:]]
    blank = [TextItem(id=item.id, reply="", truths=item.truths) if item in empty else item for item in mixed]
    found, expected = captions(mixed).by_id, captions(blank).by_id
    assert list(found) == [item.id for item in mixed]
    assert {key: found[key] for key in found if "odd" not in key} == {
        key: expected[key] for key in expected if "odd" not in key
    }
    assert found["odd 0"] == found["odd 3"] == found["odd 5"] == found["odd 6"] == 0.0
    assert found["question 0"] > 0


def test_without_java_one_sentence_says_so(monkeypatch, many):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="the caption metric needs Java for its tokenizer"):
        captions(many)


def test_without_the_package_one_sentence_says_so(monkeypatch, many):
    monkeypatch.setitem(sys.modules, "pycocoevalcap.tokenizer.ptbtokenizer", None)
    with pytest.raises(ImportError, match=r"needs pycocoevalcap .*pip install 'mmrnn\[captions\]'"):
        captions(many)
