"""Every prompt: replies equal those of the assistant, and each turn continues from a kept state where it can."""

import pytest

from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.engine.prompt import prepare
from mmrnn.prompts import PrefixLM
from mmrnn.types import Sample, Turn
from tests.inference.engine.test_scheduler import alone, drain, job_of, sample, scheduler, text
from tests.inference.scripted import IMAGE, OTHER, assistant

CARDS = sorted(path.stem for path in (conf_dir() / "prompt").glob("*.yaml"))
REWRITTEN = {"glm", "glm_english", "glm_tiny", "qwen35", "sandwich"}
"""Prompts that write the beginning of a dialogue otherwise once a turn follows."""
ENDS_WITH_IMAGE = {"last", "plain", "sandwich"}
"""Prompts that write the image behind the question, or nothing else."""


@pytest.fixture(scope="module")
def model():
    return assistant("visualrwkv6_tiny").model


def answer(used, made, dialogue):
    """Text of a reply of the scheduler, and the positions that a kept state has spared."""
    job, events = job_of(used, dialogue, max_new_tokens=4)
    made.add([job])
    drain(made)
    assert text(used, events) == alone(used, dialogue, max_new_tokens=4)
    return text(used, events), events[-1].cached, len(job.request.row.ids)


@pytest.mark.parametrize("card", CARDS)
def test_every_prompt(model, card):
    cfg = plain(compose("model=visualrwkv6_tiny", f"prompt={card}", "out=null"))
    used = Assistant(model, instantiate(cfg["tokenizer"]), instantiate(cfg["prompt"]))
    made = scheduler(used)
    first = sample("what is it?", images=[IMAGE])
    image = model.modalities["image"].layout(*model.modalities["image"].image.size).tokens
    reply, cached, length = answer(used, made, first)
    assert cached == 0
    later = Sample((*first.turns, Turn("assistant", reply or "yes"), Turn("user", "why?")), first.images)
    if isinstance(used.prompt, PrefixLM):
        with pytest.raises(ValueError, match="turns are no caption"):
            prepare(used.reader, later)
    else:
        _, cached, _ = answer(used, made, later)
        assert (cached >= length - 1) == (card not in REWRITTEN)
    _, cached, _ = answer(used, made, sample("who is that?", images=[IMAGE]))
    assert (cached >= image) == (card not in ENDS_WITH_IMAGE)
    _, cached, _ = answer(used, made, sample("what is it?", images=[OTHER]))
    assert cached < image


def test_a_state_belongs_to_its_images(model):
    used = Assistant(model, *(instantiate(plain(compose("prompt=first"))[group]) for group in ("tokenizer", "prompt")))
    states = scheduler(used).states
    one, other = (prepare(used.reader, sample("what?", images=[image])).row for image in (IMAGE, OTHER))
    assert one.ids == other.ids
    end = one.spans[0].stop
    states.put(one, end, model.backbone.state(1))
    assert states.find(one)[0] == end
    assert states.find(other) == (0, None)
    assert states.find(one._replace(ids=one.ids[:end])) == (0, None)  # a position is left to be read
    assert states.find(one._replace(ids=[one.ids[0] + 1, *one.ids[1:]])) == (0, None)
