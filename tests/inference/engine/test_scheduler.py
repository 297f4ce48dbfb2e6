"""Scheduler: replies equal those of one request alone, rows join and leave at any step, units of work stay small."""

import random
from itertools import pairwise

import pytest
import torch

from mmrnn.data import InMemoryImage
from mmrnn.inference.engine.prefill import chunk_end
from mmrnn.inference.engine.prompt import prepare
from mmrnn.inference.engine.request import Finished, GenerationRequest, Job
from mmrnn.inference.engine.scheduler import Scheduler
from mmrnn.inference.sampler import Sampler
from mmrnn.types import SLOT, Sample, State, Turn
from tests.inference.scripted import IMAGE, OTHER, Positions, assistant

FAMILIES = (
    *("visualrwkv5_tiny", "visualrwkv6_tiny", "visualrwkv7_tiny", "visualrwkv5_hybrid_tiny", "llava15_tiny"),
    *("flamingo_tiny", "flamingo_rwkv_tiny", "cogvlm_tiny", "blip2_t5_tiny", "visualglm_tiny"),
)


def sample(*turns, images=(), system=None):
    """Dialogue whose images come with its first question."""
    roles = [Turn(("user", "assistant")[number % 2], text) for number, text in enumerate(turns)]
    roles[0] = Turn("user", "<image>\n" * len(images) + turns[0])
    return Sample((*([Turn("system", system)] if system else ()), *roles), tuple(map(InMemoryImage, images)))


def job_of(used, dialogue, *, max_new_tokens=6, sampler=None, stop=(), log_probs=None):
    """Job with the list that its events go to."""
    prompt, events = prepare(used.reader, dialogue), []
    request = GenerationRequest(
        prompt.row,
        used.reader.stop_criteria(stop),
        max_new_tokens,
        sampler or Sampler(),
        log_probs,
        resume_points=prompt.resume_points,
    )
    return Job(request, events.append, used.reader.device), events


def scheduler(used, **options):
    defaults = {"max_rows": 4, "prefill_chunk": 7, "state_cache_bytes": 2**20}
    return Scheduler(used.reader, **{**defaults, **options})


def drain(made):
    for _ in range(1000):
        if not made.busy:
            return
        made.advance()
    pytest.fail("the scheduler does not come to an end")


def text(used, events, stop=()):
    ids = [event.id for event in events if not isinstance(event, Finished)]
    return used.reader.stop_criteria(stop).clean(used.tokenizer.decode(ids))


def alone(used, dialogue, **options):
    return used.answer([dialogue], **{"max_new_tokens": 6, **options})[0]


def serve(used, made, *dialogues, **options):
    """Replies that are generated together."""
    jobs = [job_of(used, dialogue, **options) for dialogue in dialogues]
    made.add(job for job, _ in jobs)
    drain(made)
    return [text(used, events) for _, events in jobs]


@pytest.fixture(scope="module")
def rwkv():
    return assistant("visualrwkv6_tiny", "prompt=first")


@pytest.mark.parametrize("name", FAMILIES)
def test_replies_equal_those_of_one_request_alone(name):
    used = assistant(name)
    dialogues = [
        sample("what is it?", images=[IMAGE]),
        sample("tell me, which of these many things is the one that was meant?", images=[OTHER]),
        sample("why?") if name not in ("blip2_t5_tiny", "visualglm_tiny") else sample("who?", images=[OTHER]),
        sample("and this?", images=[IMAGE]),
        sample("so?", images=[OTHER]),
    ]
    lengths = [6, 3, 9, 1, 5]
    drawn = Sampler(temperature=1.5, top_p=0.9, seed=7)
    samplers = [Sampler(), drawn, Sampler(), drawn, Sampler(repetition_penalty=1.5)]
    made, found = scheduler(used, max_rows=3), []
    for dialogue, length, sampler in zip(dialogues, lengths, samplers, strict=True):
        job, events = job_of(used, dialogue, max_new_tokens=length, sampler=sampler)
        made.add([job])
        made.advance()
        made.advance()
        found.append(events)
    drain(made)
    options = [{"max_new_tokens": length, "sampler": each} for length, each in zip(lengths, samplers, strict=True)]
    expected = [alone(used, each, **own) for each, own in zip(dialogues, options, strict=True)]
    assert [text(used, events) for events in found] == expected
    assert all(isinstance(events[-1], Finished) and events[-1].error is None for events in found)


@pytest.mark.parametrize("seed", range(4))
def test_rows_join_and_leave_at_any_step(rwkv, seed):
    dice, made, kept = random.Random(seed), scheduler(rwkv), []
    for number in range(12):
        images = [(), (IMAGE,), (OTHER, IMAGE)][number % 3]
        dialogue = sample(f"{'why? ' * dice.randrange(6)}what?", images=images)
        length = dice.randrange(1, 12)
        job, events = job_of(rwkv, dialogue, max_new_tokens=length)
        made.add([job])
        for _ in range(dice.randrange(6)):
            made.advance()
        if dice.random() < 0.3:
            job.cancelled = True
            heard = len(events)
            kept.append((None, events, heard))
        else:
            kept.append((alone(rwkv, dialogue, max_new_tokens=length), events, None))
    drain(made)
    for expected, events, heard in kept:
        if expected is None:
            assert len(events) == heard
        else:
            assert text(rwkv, events) == expected


@pytest.mark.parametrize("name", ["visualrwkv6_tiny", "llava15_tiny"])
def test_interleaved_conversations_do_not_hear_each_other(name):
    used = assistant(name)
    made = scheduler(used)
    asked = (("what is it?", [IMAGE]), ("who is it?", [OTHER]), ("where?", []), ("where?", [IMAGE]))
    dialogues, heard = [sample(question, images=images) for question, images in asked], []
    for further in ("why?", "how so?", "really?"):
        replies = serve(used, made, *dialogues)
        assert replies == [alone(used, each) for each in dialogues]
        heard.append(replies)
        dialogues = [
            Sample((*each.turns, Turn("assistant", reply), Turn("user", further)), each.images)
            for each, reply in zip(dialogues, replies, strict=True)
        ]
    assert len({*zip(*heard, strict=True)}) == 4


def test_log_probs_stops_and_ends(rwkv):
    dialogue = sample("what is it?", images=[IMAGE])
    [expected] = rwkv.generate([dialogue], max_new_tokens=5, log_probs=3)
    jobs = [job_of(rwkv, dialogue, max_new_tokens=5, log_probs=number) for number in (3, 0, None)]
    stop = rwkv.tokenizer.decode([expected.tokens[2].id])
    stopped, events = job_of(rwkv, dialogue, max_new_tokens=5, stop=stop)
    made = scheduler(rwkv)
    made.add([*(job for job, _ in jobs), stopped])
    drain(made)
    (many, few, none) = ([*own[:-1]] for _, own in jobs)
    for token, like, plain, bare in zip(expected.tokens, many, few, none, strict=True):
        assert token.id == like.id == plain.id == bare.id
        assert like.log_prob == pytest.approx(token.log_prob, abs=1e-5)
        assert [id for id, _ in like.top] == [id for id, _ in token.top]
        assert plain.log_prob == pytest.approx(token.log_prob, abs=1e-5)
        assert (plain.top, bare.log_prob) == ((), None)
    assert events[-1] == Finished("stop", events[-1].cached)
    assert text(rwkv, events, stop) == alone(rwkv, dialogue, max_new_tokens=5, stop=stop)
    assert jobs[0][1][-1].reason == "length"


def test_no_reply_waits_longer_than_a_chunk(rwkv):
    made, passes = scheduler(rwkv, prefill_chunk=8), []
    job, _ = job_of(rwkv, sample("what?"), max_new_tokens=200)
    made.add([job])
    while not made.rows:
        made.advance()
    long, events = job_of(rwkv, sample("why? " * 30, images=[IMAGE, OTHER, IMAGE]))
    slots = max(span.layout.tokens for span in long.request.row.spans)
    made.add([long])
    handle = rwkv.model.backbone.register_forward_pre_hook(lambda _, given: passes.append(given[0].ids))
    while not events:
        made.advance()
    handle.remove()
    chunks = [ids for ids in passes if ids.shape[1] > 1]
    read = [ids.shape[1] for ids in passes[:-1]]
    assert sum(size for size in read if size > 1) + read.count(1) > len(long.request.row.ids)
    assert len(chunks) > 10
    assert all(first == 1 or second == 1 for first, second in pairwise(read))
    for ids in chunks:
        assert ids.shape[1] <= 8 + slots
        assert (ids == SLOT).sum() in (0, slots)  # an image is in one chunk
    job.cancelled = True
    drain(made)


def test_a_chunk_ends_behind_images_that_adjoin():
    ids = [1, 2, SLOT, SLOT, SLOT, 3, SLOT, SLOT]
    assert [chunk_end(ids, stop) for stop in range(1, 9)] == [1, 2, 5, 5, 5, 6, 8, 8]


def test_images_are_encoded_once_and_dialogues_are_resumed(rwkv):
    made, encoded = scheduler(rwkv), []
    rwkv.reader.forget()
    encoder = rwkv.model.modalities["image"].encoder
    handle = encoder.register_forward_pre_hook(lambda *_: encoded.append(1))
    dialogue = sample("what is it?", images=[IMAGE])
    [reply] = serve(rwkv, made, dialogue)
    later = Sample((*dialogue.turns, Turn("assistant", reply), Turn("user", "why?")), dialogue.images)
    job, events = job_of(rwkv, later)
    with Positions(rwkv.model) as read:
        made.add([job])
        drain(made)
    size = len(job.request.row.ids)
    assert events[-1].cached > len(prepare(rwkv.reader, dialogue).row.ids) - 12
    assert read.count == size - events[-1].cached + len(events) - 2
    other, others = job_of(rwkv, sample("who is that?", images=[IMAGE]))
    made.add([other])
    drain(made)
    assert others[-1].cached > rwkv.model.modalities["image"].layout(*rwkv.model.modalities["image"].image.size).tokens
    handle.remove()
    assert len(encoded) == 1


def test_kept_states_are_bounded(rwkv):
    made = scheduler(rwkv, state_cache_bytes=0)
    expected = serve(rwkv, made, sample("what?"), sample("what?"))
    assert (len(made.states), made.states.nbytes) == (0, 0)
    size = rwkv.model.backbone.state(1).nbytes
    made = scheduler(rwkv, state_cache_bytes=3 * size)
    for number in range(6):
        serve(rwkv, made, sample(f"what about {number}?"))
        assert made.states.nbytes <= 3 * size
    assert len(made.states) == 3
    assert serve(rwkv, made, sample("what?"), sample("what?")) == expected


def test_states_of_other_weights_are_forgotten(rwkv):
    used, dialogue = assistant("visualrwkv6_tiny", "prompt=first"), sample("what is it?", images=[IMAGE])
    made = scheduler(used)
    before = serve(used, made, dialogue)
    with torch.no_grad():
        for parameter in used.model.parameters():
            parameter.add_(0.1)
    job, events = job_of(used, dialogue)
    made.add([job])
    drain(made)
    assert events[-1].cached == 0
    assert text(used, events) == alone(used, dialogue) != before[0]


def test_the_fault_of_a_row_ends_that_row_alone(rwkv, caplog):
    made, good = scheduler(rwkv), sample("what?")
    broken, events = job_of(rwkv, sample("why?", images=[IMAGE]), max_new_tokens=20)
    whole, others = job_of(rwkv, good, max_new_tokens=20)
    made.add([broken, whole])
    while len(made.rows) < 2:
        made.advance()
    made.rows._last[0] = torch.nan
    drain(made)
    assert events[-1].reason == "error"
    assert "not finite" in str(events[-1].error)
    assert text(rwkv, others) == alone(rwkv, good, max_new_tokens=20)
    unreadable, lost = job_of(rwkv, good)
    unreadable.request.row.ids[0] = 10**6
    made.add([unreadable])
    drain(made)
    assert isinstance(lost[-1].error, IndexError)
    assert "cannot be read" in caplog.text
    assert serve(rwkv, made, good) == [alone(rwkv, good)]


def out_of_memory(*_):
    raise RuntimeError("not enough memory")


def test_a_failed_step_ends_its_replies_and_no_others(rwkv, monkeypatch, caplog):
    made, good = scheduler(rwkv), sample("what?")
    (first, events), (second, others) = job_of(rwkv, good), job_of(rwkv, sample("why?"))
    made.add([first, second])
    while len(made.rows) < 2:
        made.advance()
    with monkeypatch.context() as patch:
        patch.setattr(rwkv.model, "run_backbone", out_of_memory)
        made.advance()
    assert [own[-1].reason for own in (events, others)] == ["error", "error"]
    assert not made.busy
    assert "a step has failed" in caplog.text
    assert serve(rwkv, made, good) == [alone(rwkv, good)]


def test_a_row_that_cannot_join_ends_alone(rwkv, monkeypatch, caplog):
    made, dialogue = scheduler(rwkv), sample("what?")
    (first, events), (second, others) = job_of(rwkv, dialogue), job_of(rwkv, sample("why?"))
    made.add([first, second])
    with monkeypatch.context() as patch:
        patch.setattr(State, "cat", out_of_memory)
        while not others:
            made.advance()
    assert "not enough memory" in str(others[-1].error)
    drain(made)
    assert text(rwkv, events) == alone(rwkv, dialogue)
    assert "cannot be read" in caplog.text


def test_a_listener_that_fails_is_cancelled(rwkv, caplog):
    made, good = scheduler(rwkv), sample("what?")

    def closed(_):
        raise RuntimeError("the loop is closed")

    job, _ = job_of(rwkv, good)
    broken = Job(job.request, closed, rwkv.reader.device)
    made.add([broken, job])
    drain(made)
    assert broken.cancelled
    assert "a listener has failed" in caplog.text


@pytest.mark.parametrize("name", ["max_rows", "prefill_chunk"])
def test_bounds(rwkv, name):
    with pytest.raises(ValueError, match=rf"{name} \(0\) must be at least 1"):
        scheduler(rwkv, **{name: 0})
