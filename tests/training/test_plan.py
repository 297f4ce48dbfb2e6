"""Plans of published runs come out near their published hours; the formulas on a model counted by hand."""

import argparse

import pytest
import torch

from mmrnn.backbones import RWKV6
from mmrnn.bench.data_sheets import GPUS
from mmrnn.cli.main import main
from mmrnn.cli.plan import parser, plan_run
from mmrnn.config.compose import conf_dir
from mmrnn.connectors import Linear
from mmrnn.encoders import PatchEmbed
from mmrnn.model.vlm import VLM, Modality
from mmrnn.training import Stage
from mmrnn.training.plan import plan_stage

RECOMPUTED = ("backbone.grad_checkpointing=1",)
ONE_EPOCH = ("stage.instruct.steps=5196",)  # 665k samples; the recipe takes 1.28M
CAPTION, DIALOGUE = 24, 170
"""Mean tokens of text in a sample of captions, and in one of LLaVA's mix."""

PUBLISHED = {
    # hours, GPUs, (model, recipe, further overrides) of each stage, text tokens of each, padded
    "VisualRWKV 1.6B": (6.7, 8, [("visualrwkv6_1b6", "visualrwkv6_instruct", RECOMPUTED + ONE_EPOCH, DIALOGUE)], True),
    "VisualRWKV 3B": (11.3, 8, [("visualrwkv6_3b", "visualrwkv6_instruct", RECOMPUTED + ONE_EPOCH, DIALOGUE)], True),
    "VisualRWKV 7B": (26.5, 6, [("visualrwkv6_7b", "visualrwkv6_instruct", RECOMPUTED + ONE_EPOCH, DIALOGUE)], True),
    "LLaVA-1.5 7B": (
        13.5,
        8,
        [
            ("llava15_7b", "llava15_align", (), CAPTION),
            ("llava15_7b", "llava15_instruct", RECOMPUTED, DIALOGUE),
        ],
        False,
    ),
    "LLaVA-1.5 13B, first stage": (5.5, 8, [("llava15_13b", "llava15_align", (), CAPTION)], False),
    "LLaVA-1.5 13B, second stage": (20, 8, [("llava15_13b", "llava15_instruct", RECOMPUTED, DIALOGUE)], False),
    "EVE": (
        9 * 24,
        16,
        [("eve_7b", f"eve_{stage}", RECOMPUTED, DIALOGUE if stage == 3 else CAPTION) for stage in (1, 2, 3)],
        False,
    ),
    "MiniGPT-v2, first stage": (90, 8, [("minigptv2_7b", "minigptv2_1", (), CAPTION)], False),
    "MiniGPT-4 13B, first stage": (10, 4, [("minigpt4_13b", "minigpt4_align", (), CAPTION)], False),
}


def plans(model, recipe, more, text, padded, gpus):
    options = parser().parse([f"--text-tokens={text}", *(["--padded"] if padded else [])])
    found = plan_run([f"model={model}", f"recipe={recipe}", *more], options, gpus, "a100_80g")
    return [plan for _, plan in found]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_hours(name):
    hours, gpus, stages, padded = PUBLISHED[name]
    made = [plan for stage in stages for plan in plans(*stage, padded, gpus)]
    assert 1 / 1.4 < sum(plan.seconds for plan in made) / 3600 / hours < 1.4
    assert all(plan.micro_batch() for plan in made), "it was trained, so that it fits"


@pytest.fixture
def model():
    with torch.device("meta"):
        encoder = PatchEmbed(size=32, patch=8, width=24)
        backbone = RWKV6(vocab=100, width=32, depth=2, head_size=16)
        return VLM(backbone, {"image": Modality(encoder, Linear(24, 32))})


def numel(module):
    return sum(parameter.numel() for parameter in module.parameters())


def planned(model, train, **more):
    stage = Stage(train=train, steps=10, batch_size=8)
    return plan_stage(model, stage, GPUS["a100_40g"], **{"gpus": 2, "text_tokens": 4, "mfu": 0.5, **more})


def test_passes_of_every_part(model):
    """Forward 1, gradient of the input 1, of the weights 1; what stands in front of all that is trained: 1."""
    encoder, connector, backbone = planned(model, ["backbone"]).parts
    tokens = 16 + 4
    assert encoder.flops == 2 * 16 * (3 * 8 * 8 * 24)
    assert connector.flops == 2 * 16 * numel(model.modalities["image"].connector)
    assert backbone.flops == 3 * 2 * tokens * numel(model.backbone)
    assert planned(model, ["connector"]).parts[2].flops == 2 * 2 * tokens * numel(model.backbone)
    assert planned(model, ["connector"]).parts[1].flops == 3 * connector.flops
    assert planned(model, ["encoder"]).parts[0].flops == 3 * encoder.flops
    model.backbone.grad_checkpointing = 1
    assert planned(model, ["connector"]).parts[2].flops == 3 * 2 * tokens * numel(model.backbone)
    assert planned(model, ["backbone"]).parts[2].flops == 4 * 2 * tokens * numel(model.backbone)
    model.backbone.grad_checkpointing = 2  # one of two blocks
    assert planned(model, ["backbone"]).parts[2].flops == 3.5 * 2 * tokens * numel(model.backbone)


def test_time_and_memory(model):
    plan = planned(model, ["backbone"])
    assert (plan.tokens, plan.samples) == (20, 80)
    assert plan.seconds == pytest.approx(plan.flops / (0.5 * 312e12 * 2))
    assert plan.tokens_per_second == pytest.approx(80 * 20 / plan.seconds)
    assert planned(model, ["backbone"], padded_to=64).tokens == 64
    assert plan.weight_bytes(plan.parts[2], 1) == 16 * numel(model.backbone)
    assert plan.weight_bytes(plan.parts[2], 4) == 4 * numel(model.backbone)
    assert plan.weight_bytes(plan.parts[0], 1) == 2 * numel(model.modalities["image"].encoder)
    assert plan.memory_bytes(2) - plan.memory_bytes(1) == plan.activation_bytes(1)
    assert (plan.micro_batch(), plan.fewest_gpus()) == (4, 1)


def test_seven_billion_parameters_need_two_gpus():
    """16 bytes per parameter: 122 GB, more than one holds; 15.3 GB each on eight."""
    [plan] = plans("visualrwkv6_7b", "visualrwkv6_instruct", RECOMPUTED, DIALOGUE, True, 8)
    backbone = plan.parts[-1]
    assert plan.weight_bytes(backbone._replace(trained=backbone.parameters), 8) / 1e9 == pytest.approx(15.3, abs=0.1)
    assert (plan.fits(1, 1), plan.fewest_gpus()) == (False, 2)


def test_every_preset_is_planned():
    """Or refused, where there is no language model."""
    options = argparse.Namespace(**vars(parser().parse([])))
    for name in sorted(path.stem for path in (conf_dir() / "model").glob("*_tiny.yaml")):
        assert all(plan.seconds > 0 for _, plan in plan_run([f"model={name}"], options, 1, "h100_80g")), name


def test_command(capsys):
    chosen = ("model=visualrwkv6_7b", "recipe=visualrwkv6_instruct", "backbone.grad_checkpointing=1")
    assert main(["plan", *chosen, "gpus=8", "gpu=a100_80g", "--padded"]) == 0
    stdout = capsys.readouterr().out
    assert "1,280,000 samples of 2048 positions" in stdout
    assert "smallest number of such GPUs: 2" in stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gpu=a100_80gb"], "gpu=a100_80gb: no such GPU; did you mean 'a100_80g'?"),
        (["gpus=none"], "gpus: expected a whole number of at least 1, got 'none'"),
        (["--mfu", "2"], "expected a share between 0 and 1, got '2'"),
        (["model=blip2_stage1"], "NoBackbone is no language model"),
    ],
)
def test_mistakes(words, message, capsys):
    assert main(["plan", *words]) == 2
    assert message in capsys.readouterr().err
