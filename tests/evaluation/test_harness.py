"""Settings and batches of harness requests; neither harness is needed."""

import pytest
import torch

from mmrnn.evaluation.harness import Generation, batches, load_assistant, seeds, to_batch_size
from mmrnn.inference.sampler import Sampler


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, Generation(7, (), None)),
        ({"max_new_tokens": 3, "until": "\n", "temperature": 0.0, "top_p": None}, Generation(3, ("\n",), None)),
        ({"max_gen_toks": 9, "until": ["a", "b"], "num_beams": 1}, Generation(9, ("a", "b"), None)),
        ({"temperature": 0.5, "top_k": 4, "top_p": 0.9}, Generation(7, (), Sampler(0.5, 4, 0.9))),
        ({"do_sample": True}, Generation(7, (), Sampler(1.0))),
        ({"do_sample": False, "temperature": 0.7}, Generation(7, (), None)),
    ],
)
def test_settings_of_a_task(settings, expected):
    assert Generation.parse(settings, max_new_tokens=7) == expected


def test_settings_that_cannot_be_kept(caplog):
    with pytest.raises(ValueError, match="num_beams=5 of the task is not supported"):
        Generation.parse({"num_beams": 5}, max_new_tokens=1)
    with pytest.raises(ValueError, match="temperature"):
        Generation.parse({"temperature": -1.0}, max_new_tokens=1)
    for _ in range(2):
        Generation.parse({"image_aspect_ratio": "pad", "visual_cot": True}, max_new_tokens=1)
    assert caplog.messages == ["generation_kwargs that are not used: image_aspect_ratio, visual_cot"]


def test_batches_have_one_group_and_similar_lengths():
    made = batches("abaabba", [3, 9, 1, 5, 2, 8, 7], 2)
    assert made == [[1, 5], [6, 3], [0, 2], [4]]
    assert sorted(index for batch in made for index in batch) == [*range(7)]
    assert batches([], [], 3) == []


def test_seeds_follow_the_default_generator():
    torch.manual_seed(1)
    first = seeds(5)
    torch.manual_seed(1)
    assert seeds(5) == first
    assert len({*first}) == 5
    sampling = Generation(7, (), Sampler(0.5, 4))
    assert sampling.samplers([3, 9]) == [Sampler(0.5, 4, seed=3), Sampler(0.5, 4, seed=9)]
    assert Generation(7, (), None).samplers([3, 9]) is None


@pytest.mark.parametrize("value", ["auto", "0", 0, -1, "2.5", ""])
def test_batch_sizes_that_are_none(value):
    with pytest.raises(ValueError, match="batch_size"):
        to_batch_size(value)


def test_batch_sizes_are_numbers_or_texts():
    assert to_batch_size("16") == to_batch_size(16) == 16


def test_the_run_is_loaded_onto_the_device(tiny_run, images):
    loaded = load_assistant(str(tiny_run.folder), "cpu", "")
    asked = (images[0], "what is it?")
    assert loaded.ask(*asked, max_new_tokens=4) == tiny_run.assistant.ask(*asked, max_new_tokens=4)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"device=cuda:0: torch finds 0 CUDA devices here"):
            load_assistant(str(tiny_run.folder), "cuda:0", "")
