"""Scores of candidate replies equal those of one pass over each whole dialogue, in every design."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from mmrnn.backbones import RWKV6
from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.data import InMemoryImage
from mmrnn.data.collate import Collator
from mmrnn.data.image import ImageError
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.score import score_tokens
from mmrnn.model.build import build
from mmrnn.model.vlm import VLM
from mmrnn.prompts import PrefixLM, RWKVChat, Template
from mmrnn.tokenizers import RWKVWorldTokenizer
from mmrnn.types import Sample, Span, Turn

TINY = sorted(path.stem for path in (conf_dir() / "model").glob("*_tiny.yaml"))
SLOW = {"blip2_t5_tiny"}
CANDIDATES = ["a red square", "no", "three blue circles and one 你好 on the left.", "no"]


def made(name, *overrides):
    torch.manual_seed(0)
    cfg = plain(compose(f"model={name}", "out=null", *overrides))
    model = build(cfg).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return Assistant(model, instantiate(cfg["tokenizer"]), instantiate(cfg["prompt"]))


def sample(question="<image>\nwhat is it?", images=1, size=(30, 20)):
    image = InMemoryImage(Image.linear_gradient("L").resize(size))
    return Sample((Turn("user", question),), (image,) * images)


@torch.no_grad()
def whole(assistant, given, reply, count):
    """Log-probabilities of the last `count` tokens of a dialogue, read in one pass."""
    model = assistant.model
    collate = Collator(assistant.tokenizer, assistant.prompt, dict(model.modalities), for_generation=True)
    given = replace(given, turns=(*given.turns, Turn("assistant", reply)))
    prepared = collate.prepare(given)
    logits = model.head(model(collate.assemble([prepared])).hidden[0]).float()
    ids = prepared.row.ids
    assert ids[-count:] == prepared.row.labels[-count:]
    steps = range(len(ids) - count, len(ids))
    return ids[-count:], [float(logits[step - 1].log_softmax(-1)[ids[step]]) for step in steps]


def assert_equals_whole(assistant, given, candidates=CANDIDATES, **options):
    scores = assistant.score(given, candidates, **options)
    assert len(scores) == len(candidates)
    for reply, score in zip(candidates, scores, strict=True):
        ids, log_probs = whole(assistant, given, reply, len(score.ids))
        assert [*score.ids] == ids
        assert score.log_probs == pytest.approx(log_probs, abs=1e-5)
        assert score.sum() == pytest.approx(sum(log_probs), abs=1e-5 * len(ids))
    return scores


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in TINY])
def test_scores_equal_one_pass_over_each_dialogue(name):
    assert_equals_whole(made(name), sample(), batch_size=3)


PROMPTS = sorted(path.stem for path in (conf_dir() / "prompt").glob("*.yaml"))


@pytest.fixture(scope="module")
def assistant():
    """A tiny RWKV-6, which reads its images in several orders."""
    return made("visualrwkv6_tiny", "scan=multidirectional")


def under(assistant, prompt, tokenizer=None):
    return Assistant(assistant.model, tokenizer or assistant.tokenizer, prompt)


@pytest.mark.parametrize("name", PROMPTS)
def test_every_prompt_writes_the_reply_as_in_training(assistant, name):
    cfg = plain(compose("model=visualrwkv6_tiny", f"prompt={name}", "out=null"))
    prompt = instantiate(cfg["prompt"])
    if isinstance(prompt, PrefixLM):
        with pytest.raises(ValueError, match="PrefixLM writes words of the reply"):
            under(assistant, prompt).score(sample(), CANDIDATES)
        return
    for score, reply in zip(assert_equals_whole(under(assistant, prompt), sample()), CANDIDATES, strict=True):
        text = score.ids[: len(score.ids) - score.num_end]
        assert reply in assistant.tokenizer.decode(text)
        assert score.num_end or name == "plain"


@pytest.mark.parametrize("scan", ["forward", "bidirectional", "spiral", "snake", "zigzag"])
def test_every_scan(scan):
    for name in ("visualrwkv5_tiny", "visualrwkv7_tiny"):
        assert_equals_whole(made(name, f"scan={scan}"), sample())


def test_dialogues_of_several_turns_and_images(assistant):
    turns = (Turn("user", "<image><image>\nwhat?"), Turn("assistant", "a cat"), Turn("user", "sure?"))
    given = replace(sample(images=2), turns=turns)
    for tiny in (assistant, made("flamingo_tiny"), made("visualglm_tiny")):
        assert_equals_whole(tiny, given)
    assert_equals_whole(assistant, Sample((Turn("system", "Be short."), turns[2])))


@pytest.mark.parametrize("name", ["fuyu_tiny", "eve_tiny"])
def test_images_of_variable_size(name):
    assistant = made(name)
    for size in ((30, 20), (17, 64)):
        assert_equals_whole(assistant, sample(size=size))


def test_observations():
    given = sample("<image> The robot is at <state>, the cup at <state>. what now?")
    observed = {"state": (torch.randn(2, 4), torch.randn(2, 4))}
    assistant = made("palm_e_tiny")
    scores = assert_equals_whole(assistant, replace(given, observations=observed))
    others = assistant.score(replace(given, observations={"state": observed["state"][::-1]}), CANDIDATES)
    assert scores[0].sum() != pytest.approx(others[0].sum(), abs=1e-4)


def test_cached_features_replace_the_images(assistant):
    given = sample()
    collate = Collator(assistant.tokenizer, assistant.prompt, dict(assistant.model.modalities))
    image = collate.prepare(replace(given, turns=(*given.turns, Turn("assistant", "a")))).inputs[0][1]
    with torch.no_grad():
        features = {given.images[0].key: assistant.model.modalities["image"].encode(image[None])[0]}
    cached = Assistant(assistant.model, assistant.tokenizer, assistant.prompt, features=features)
    expected = assistant.score(given, CANDIDATES)
    for score, other in zip(cached.score(given, CANDIDATES), expected, strict=True):
        assert score.log_probs == pytest.approx(other.log_probs, abs=1e-6)


def test_the_prompt_is_read_once(assistant, monkeypatch):
    read, opened = [], []
    run, given = assistant.model.run_backbone, sample()

    class Counted(InMemoryImage):
        def open(self):
            opened.append(self)
            return super().open()

    given = replace(given, images=(Counted(Image.new("RGB", (9, 9))),))
    monkeypatch.setattr(
        assistant.model, "run_backbone", lambda sequence, state: read.append(sequence.ids.shape) or run(sequence, state)
    )
    scores = assistant.score(given, CANDIDATES, batch_size=4)
    longest = max(len(score.ids) for score in scores)
    assert len(opened) == 1
    assert [shape[0] for shape in read] == [1, 4]
    assert read[1][1] == longest - 1
    assert not assistant.model.training
    sizes = [len(assistant.score(given, CANDIDATES, batch_size=size)) for size in (1, 3)]
    assert sizes == [4, 4]
    assert [shape[0] for shape in read[2:]] == [1, 1, 1, 1, 1, 1, 3, 1]


def test_replies_to_several_prompts_read_in_parts(assistant, monkeypatch):
    monkeypatch.setattr("mmrnn.inference.score.MAX_STEPS", 2)
    collate = Collator(assistant.tokenizer, assistant.prompt, dict(assistant.model.modalities), for_generation=True)
    asked = [sample(text) for text in ("<image>\nwhat is it?", "<image>\na longer question: what is in it?")]
    expected = [score for given in asked for score in assistant.score(given, CANDIDATES)]
    contexts = collate([replace(given, turns=(*given.turns, Turn("assistant", ""))) for given in asked])
    for size in (1, 3):
        found = score_tokens(
            assistant.model, contexts, [score.ids for score in expected], [0] * 4 + [1] * 4, batch_size=size
        )
        for one, other in zip(found, expected, strict=True):
            assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)
            assert one.greedy == other.greedy
    with pytest.raises(ValueError, match="reply 2 of 2 has no token"):
        score_tokens(assistant.model, contexts, [[1], []])


def test_the_greedy_reply_is_the_likeliest(assistant, monkeypatch):
    [token], head = assistant.tokenizer.encode("k"), assistant.model.head
    bonus = 50 * torch.nn.functional.one_hot(torch.tensor(token), assistant.model.backbone.vocab)
    monkeypatch.setattr(assistant.model, "head", lambda hidden: head(hidden) + bonus)
    bare = under(assistant, Template(first="{text}:", reply="{text}\n", stops=()))
    assert bare.answer([sample()], max_new_tokens=1) == ["k"]
    best, *others = bare.score(sample(), ["k", *"abc"])
    assert best.is_greedy(end=False)
    assert not best.is_greedy()
    assert not any(other.is_greedy(end=False) for other in others)
    assert best.sum(end=False) == pytest.approx(0, abs=1e-4)
    assert all(other.sum(end=False) < -20 for other in others)


def test_the_end_of_the_turn_is_counted_or_not():
    tokenizer = RWKVWorldTokenizer()
    model = VLM(RWKV6(vocab=tokenizer.vocab, width=32, depth=2, head_size=16).eval(), {})
    assistant = Assistant(model, tokenizer, RWKVChat())
    plain_end, merged = assert_equals_whole(assistant, sample("what?", 0), ["a cat", "\u4e00\u53ea\u732b\u3002"])
    assert tokenizer.decode(list(plain_end.ids[: -plain_end.num_end])) == " a cat"
    # One token holds the full stop and the first line break.
    assert merged.num_end == 1
    assert tokenizer.decode(list(merged.ids[:-1])) == " \u4e00\u53ea\u732b\u3002\n"
    assert plain_end.sum(end=False) == pytest.approx(sum(plain_end.log_probs[: -plain_end.num_end]))
    assert plain_end.mean() == pytest.approx(plain_end.sum() / len(plain_end.ids))
    assert plain_end.sum() < plain_end.sum(end=False)


def test_a_prompt_that_the_tokenizer_merges_with_a_reply_is_cut_before_it():
    # The opening of the reply is `\n`, and the tokenizer has a token for two of them.
    prompt = Template(first="{text}", reply="{text}", reply_opening="\n", stops=())
    tokenizer = RWKVWorldTokenizer()
    model = VLM(RWKV6(vocab=tokenizer.vocab, width=32, depth=2, head_size=16).eval(), {})
    both = Assistant(model, tokenizer, prompt)
    alone = both.score(sample("what?", 0), ["cat"])[0]
    assert tokenizer.decode(list(alone.ids)) == "cat"
    cat, merged = assert_equals_whole(both, sample("what?", 0), ["cat", "\ncat"])
    assert tokenizer.decode(list(cat.ids)) == "\ncat"
    assert tokenizer.decode(list(merged.ids)) == "\n\ncat"


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([], r"candidates \(\[\]\) must be a list of at least one reply"),
        ("yes", r"candidates \('yes'\) must be a list"),
        (["yes", ""], "candidate 2 of 2 is empty"),
        ([" \n"], "candidate 1 of 1 is empty"),
    ],
)
def test_candidates_that_are_none_are_refused(assistant, candidates, message):
    with pytest.raises(ValueError, match=message):
        assistant.score(sample(), candidates)


def test_a_model_without_a_head_is_refused(assistant, monkeypatch):
    monkeypatch.setattr(assistant.model.backbone, "generates", False, raising=False)
    with pytest.raises(ValueError, match="RWKV6 has no head"):
        assistant.score(sample(), ["yes"])


class NamesTheLength(RWKVChat):
    """A prompt that writes the length of the reply before it."""

    def spans(self, turns, images):
        return [Span(str(len(turns[-1].text))), *super().spans(turns, images)]


def test_a_prompt_that_depends_on_the_reply_is_refused(assistant):
    with pytest.raises(ValueError, match="the prompt writes other text before one reply than before another"):
        under(assistant, NamesTheLength()).score(sample(), ["no", "yes"])


def test_bad_input_is_refused(assistant):
    with pytest.raises(ValueError, match="ends with no question"):
        assistant.score(Sample(()), ["yes"])
    with pytest.raises(ValueError, match=r"batch_size \(0\)"):
        assistant.score(sample(), ["yes"], batch_size=0)
    with pytest.raises(ValueError, match="tags"):
        assistant.score(sample(images=2), ["yes"])
    with pytest.raises(ValueError, match="leaves the reply out"):
        under(assistant, Template(reply="yes")).score(sample(), ["no"])
    with pytest.raises(ValueError, match="nothing is in front of the reply"):
        under(assistant, Template(first="", system="")).score(sample("", 0), ["no"])
    broken = replace(sample(), images=(InMemoryImage(Image.new("RGB", (0, 9))),))
    with pytest.raises(ImageError):
        assistant.score(broken, ["yes"])
