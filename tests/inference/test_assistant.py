"""The assistant: edges, streams of text, and calls that overlap."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby, pairwise

import pytest
import torch
from PIL import Image

import mmrnn
from mmrnn.backbones import RWKV6
from mmrnn.config.instantiate import instantiate
from mmrnn.data import InMemoryImage
from mmrnn.data.image import ImageError
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.beam_search import BeamSearch
from mmrnn.inference.eval_mode import eval_mode
from mmrnn.inference.sampler import Sampler
from mmrnn.inference.text_stream import TextStream
from mmrnn.model.vlm import VLM
from mmrnn.prompts import RWKVChat, StopCriteria, Template
from mmrnn.tokenizers import DemoTokenizer, RWKVWorldTokenizer
from mmrnn.types.sample import Sample, Turn


@pytest.fixture(scope="module")
def assistant():
    """A tiny model with random weights, whose replies differ from question to question."""
    torch.manual_seed(0)
    cfg = mmrnn.compose("model=visualrwkv6_tiny")
    model = mmrnn.build(cfg)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.normal_(std=0.3)
    return Assistant(model, instantiate(cfg.tokenizer), instantiate(cfg.prompt))


class ScriptedModel(VLM):
    """A model that says given ids."""

    def __init__(self, script, vocab):
        super().__init__(RWKV6(vocab=vocab, width=16, depth=1, head_size=16), {})
        self.script, self.vocab = iter(script), vocab

    def head(self, hidden):
        return torch.nn.functional.one_hot(torch.tensor([next(self.script)]), self.vocab).float()


def streamed(text, tokenizer, prompt, end=(0,), **options):
    """Texts of the stream of a model that says `text`."""
    model = ScriptedModel([*tokenizer.encode(text), *end], tokenizer.vocab)
    return [*Assistant(model, tokenizer, prompt).stream(None, "hi", **{"max_new_tokens": 999, **options})]


def assert_prefixes(texts):
    assert all(after.startswith(before) for before, after in pairwise(texts)), texts


@pytest.mark.parametrize("tokenizer", [RWKVWorldTokenizer, DemoTokenizer])
@pytest.mark.parametrize("text", [" 你好👨‍👩‍👧 안녕 𓀀 end. ", " a \n b\n", "é", ""])
def test_a_streamed_text_only_grows(tokenizer, text):
    texts = streamed(text, tokenizer(), RWKVChat())
    assert texts[-1] == text.strip()
    assert not any("\ufffd" in each for each in texts)
    assert_prefixes(texts)


def test_an_unfinished_character_waits_until_the_end():
    tokenizer = DemoTokenizer()
    ids = tokenizer.encode("a𓀀")
    texts = streamed("a𓀀", tokenizer, RWKVChat(), max_new_tokens=len(ids) - 1)
    assert texts[:-1] == ["a"] * (len(ids) - 1)
    assert texts[-1].startswith("a\ufffd")


@pytest.mark.parametrize("written", ["a cat ### Human: and", "a cat ## 5 # ###", "a cat ##", "a cat</s", "###"])
def test_the_beginning_of_a_stop_string_is_held_back(written):
    stops = ("###", "</s>")
    texts = streamed(written, DemoTokenizer(), Template(stops=stops))
    assert texts[-1] == written.partition("###")[0].strip()
    assert_prefixes(texts)
    # All that is shown before the end stays whatever follows.
    assert not any(text.endswith(("#", "</s")) for text in texts[:-1] if text != "a cat ## 5 #")


class Fused(DemoTokenizer):
    """Decodes as SentencePiece with byte fallback does: one broken byte breaks all bytes beside it."""

    def decode(self, ids):
        runs = [[*run] for _, run in groupby(ids, lambda id: id <= 256)]
        texts = [DemoTokenizer.decode(self, run) for run in runs]
        broken = ["\ufffd" in text for text in texts]
        return "".join("\ufffd" * len(run) if bad else text for run, text, bad in zip(runs, texts, broken, strict=True))


def test_whole_characters_that_become_broken_again_stay():
    tokenizer = Fused()
    stream = TextStream(tokenizer, StopCriteria(tokenizer))
    texts = [stream.push(id) for id in DemoTokenizer().encode("你好")]
    assert texts[-1] == stream.finish() == "你好"
    assert "你" in texts[:-1]
    assert_prefixes(texts)


def test_a_reply_continues_behind_bytes_that_end_in_no_character():
    tokenizer = Fused()
    cat = tokenizer.encode("the cat")
    assert not any(0 < id <= 256 for id in cat)
    ids = [*tokenizer.encode("你"), 0xE5 + 1, 0xA5 + 1, *cat, *tokenizer.encode("好"), 0xE5 + 1, *cat]
    stream = TextStream(tokenizer, StopCriteria(tokenizer))
    texts = [*map(stream.push, ids), stream.finish()]
    assert texts[-1] == "你\ufffd\ufffdthe cat好\ufffdthe cat"
    assert_prefixes(texts)


def test_no_tokens_no_samples_no_question(assistant):
    assert assistant.ask(None, "what?", max_new_tokens=0) == ""
    assert [*assistant.stream(None, "what?", max_new_tokens=0)] == []
    sample = Sample((Turn("user", "what?"),))
    assert assistant.answer([sample], max_new_tokens=0) == [""]
    assert assistant.answer([]) == []
    for turns in ((), (Turn("assistant", "a"),), (Turn("user", "q"), Turn("assistant", "a"), Turn("assistant", "b"))):
        with pytest.raises(ValueError, match="sample 7 ends with no question of the user"):
            assistant.answer([Sample(turns, id="7")])
    with pytest.raises(ValueError, match="max_new_tokens"):
        assistant.ask(None, "what?", max_new_tokens=-1)


@pytest.mark.parametrize(
    ("image", "question", "message"),
    [
        (Image.new("RGB", (9, 9)), "<image><image> what?", "2 <image> for 1 images"),
        (Image.new("RGB", (9, 9)), "<image> and <video>", "1 <image> and 1 <video> for 1 images"),
        (Image.new("RGB", (9, 9)), "<video> what?", r"give the path of a video \(got Image\)"),
        (None, "<image> what?", "1 <image> for 0 images"),
        (None, "<video> what?", "1 <video> for 0 images"),
    ],
)
def test_tags_without_an_image_are_refused(assistant, image, question, message):
    with pytest.raises(ValueError, match=message):
        assistant.ask(image, question)


def test_a_string_of_the_caller_ends_a_reply():
    tokenizer, sample = DemoTokenizer(), Sample((Turn("user", "what?"),))
    script = [*tokenizer.encode("a cat and a dog"), 0]
    model = ScriptedModel(script * 2, tokenizer.vocab)
    assistant = Assistant(model, tokenizer, RWKVChat())
    assert assistant.answer([sample]) == ["a cat and a dog"]
    assert assistant.answer([sample], stop=["", " and"]) == ["a cat"]
    assert next(model.script) == tokenizer.encode(" a dog")[0]  # nothing was generated behind it


def test_a_seeded_reply_is_the_same_alone_and_among_others(assistant):
    samples = [Sample((Turn("user", text),)) for text in ("what?", "who is it?", "what?")]
    samplers = [Sampler(temperature=1.0, seed=seed) for seed in (1, 2, 3)]
    together = assistant.answer(samples, sampler=samplers, max_new_tokens=8)
    assert together == [
        assistant.answer([one], sampler=sampler, max_new_tokens=8)[0]
        for one, sampler in zip(samples, samplers, strict=True)
    ]
    assert together[0] != together[2]


def test_overlapping_contexts_restore_the_mode_once(assistant):
    model = assistant.model.train()
    model.backbone.norm.eval()
    first, second = assistant.stream(None, "a"), assistant.stream(None, "b")
    next(first), next(second)
    first.close()
    assert not any(module.training for module in model.modules())
    second.close()
    assert model.training
    assert not model.backbone.norm.training
    with pytest.raises(KeyError), eval_mode(model), eval_mode(model):
        raise KeyError
    assert model.training


class Interrupts(InMemoryImage):
    """An image during whose opening another question fails."""

    def open(self):
        with pytest.raises(ImageError):
            Interrupts.assistant.ask("no such file.png", "what?")
        return super().open()


def test_a_call_does_not_see_the_faults_of_another(assistant):
    Interrupts.assistant = assistant
    sample = Sample((Turn("user", "<image>\nwhat?"),), (Interrupts(Image.new("RGB", (9, 9))),))
    assert len(assistant.answer([sample], max_new_tokens=2)) == 1


def test_threads_get_what_each_gets_alone(assistant):
    assistant.model.train()
    image = InMemoryImage(Image.new("RGB", (20, 20), "red"))

    def ask(seed):
        sample = Sample((Turn("user", "<image>\nwhat is this? " + "why? " * seed),), (image,))
        return assistant.answer([sample], sampler=Sampler(temperature=1.0, seed=seed), max_new_tokens=10)

    alone = [ask(seed) for seed in range(6)]
    assert len({*map(tuple, alone)}) == 6
    with ThreadPoolExecutor(3) as pool:
        assert [*pool.map(ask, range(6))] == alone
    assert assistant.model.training


def whole_log_probs(assistant, sample, ids):
    """Log-probabilities of all tokens in the places of a reply, from one pass over the prompt and the reply."""
    batch = assistant.reader.collator()([sample])
    whole = torch.cat([batch.sequence.ids, torch.tensor([ids])], dim=1)
    sequence = assistant.model.embed(replace(batch, sequence=replace(batch.sequence, ids=whole)))
    hidden, _ = assistant.model.run_backbone(sequence)
    return assistant.model.head(hidden[0, -len(ids) - 1 : -1]).log_softmax(-1)


@torch.no_grad()
def test_log_probabilities_are_those_of_one_pass(assistant):
    image = InMemoryImage(Image.new("RGB", (20, 20), "red"))
    texts = ("<image>\nwhat is this?", "what?", "who is <image> it?")
    samples = [Sample((Turn("user", text), Turn("assistant", "")), (image,) * text.count("<image>")) for text in texts]
    samplers = [Sampler(), Sampler(temperature=2.0, top_k=20, seed=1), Sampler(repetition_penalty=3.0)]
    replies = assistant.generate(samples, sampler=samplers, max_new_tokens=6, log_probs=4)
    assert [reply.text for reply in replies] == assistant.answer(samples, sampler=samplers, max_new_tokens=6)
    for sample, reply in zip(samples, replies, strict=True):
        ids = [token.id for token in reply.tokens]
        wanted = whole_log_probs(assistant, sample, ids)
        best = wanted.topk(4)
        for place, token in enumerate(reply.tokens):
            assert token.log_prob == pytest.approx(wanted[place, token.id].item(), abs=2e-5)
            assert [id for id, _ in token.top] == best.indices[place].tolist()
            assert [value for _, value in token.top] == pytest.approx(best.values[place].tolist(), abs=2e-5)
    assert any(token.id != token.top[0][0] for token in replies[1].tokens)


def test_log_probabilities_come_on_request(assistant):
    sample = Sample((Turn("user", "what?"),))

    def tokens(log_probs):
        [reply] = assistant.generate([sample], max_new_tokens=2, log_probs=log_probs)
        return reply.tokens

    assert all(token.log_prob is None and token.top == () for token in tokens(None))
    assert all(token.log_prob < 0 and token.top == () for token in tokens(0))
    assert len(tokens(10**6)[0].top) == assistant.model.backbone.vocab
    for wrong in (-1, 1.5, True, "2"):
        with pytest.raises(ValueError, match=r"log_probs \(.*\) must be a number of most likely tokens"):
            tokens(wrong)
    assert assistant.generate([]) == []


def spelled(text, end=(0,), **options):
    """Text of a reply that a model spells in bytes, which all its streamed texts begin."""
    tokenizer = DemoTokenizer()
    ids = [*(byte + 1 for byte in text.encode()), *end]

    def made():
        return Assistant(ScriptedModel(ids, tokenizer.vocab), tokenizer, Template(stops=("###",)))

    texts = [*made().stream(None, "hi", max_new_tokens=99, **options)]
    assert_prefixes(texts)
    [reply] = made().generate([Sample((Turn("user", "hi"),))], max_new_tokens=99, **options)
    assert texts[-1] == reply.text == made().ask(None, "hi", max_new_tokens=99, **options)
    return reply


def test_stop_strings_beside_those_of_the_prompt():
    text = "one, two; three ### four"
    assert spelled(text).text == "one, two; three"
    for stop, wanted in (
        (";", "one, two"),
        (("four", " th"), "one, two;"),
        ([", two"], "one"),
        (("", "zzz"), "one, two; three"),
        (("o", "###"), ""),
        ("é", "one, two; three"),
    ):
        assert spelled(text, stop=stop).text == wanted, stop
    # Each stop string lies across the borders of tokens, which are bytes here.
    reply = spelled("a cat and 你好 dog", stop="你好")
    assert reply.text == "a cat and"
    assert len(reply.tokens) == len("a cat and 你好".encode())
    assert reply.finish_reason == "stop"
    for wrong in (3, None, ("a", 3), b"a"):
        with pytest.raises(ValueError, match=r"stop \(.*\) must be a string or several"):
            spelled(text, stop=wrong)


def test_a_reply_says_what_ended_it(assistant):
    assert spelled("a", end=(0,)).finish_reason == "stop"
    assert spelled("a ###").finish_reason == "stop"
    sample = Sample((Turn("user", "what?"),))
    [reply] = assistant.generate([sample], max_new_tokens=1, sampler=Sampler(temperature=1.0, seed=3))
    assert (reply.finish_reason, len(reply.tokens)) == ("length", 1)
    [reply] = assistant.generate([sample], max_new_tokens=0)
    assert (reply.finish_reason, reply.tokens, reply.text) == ("length", (), "")


def test_ask_and_stream_take_samplers_and_beams(assistant):
    sampler = Sampler(temperature=1.5, top_p=0.9, min_p=0.01, repetition_penalty=1.3, seed=11)
    options = {"sampler": sampler, "max_new_tokens": 10}
    asked = assistant.ask(None, "what is it?", **options)
    assert asked == [*assistant.stream(None, "what is it?", **options)][-1]
    assert asked == assistant.answer([Sample((Turn("user", "what is it?"),))], **options)[0]
    assert asked != assistant.ask(None, "what is it?", sampler=replace(sampler, seed=12), max_new_tokens=10)
    samples = [Sample((Turn("user", text),)) for text in ("what?", "who is it?", "a")]
    beams = {"beams": BeamSearch(num_beams=3), "max_new_tokens": 8}
    together = assistant.answer(samples, **beams)
    assert together == [assistant.answer([one], **beams)[0] for one in samples]
    assert together[0] == assistant.ask(None, "what?", **beams)
    [reply] = assistant.generate(samples[:1], **beams)
    assert all(token.log_prob is None for token in reply.tokens)
    with pytest.raises(ValueError, match="leave out sampler"):
        assistant.answer(samples, sampler=sampler, **beams)
    with pytest.raises(ValueError, match="2 samplers for 3 rows"):
        assistant.answer(samples, sampler=[sampler, sampler])
