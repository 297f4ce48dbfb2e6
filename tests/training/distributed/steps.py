"""Steps of a tiny model on micro-batches of text and of images, by one process or several."""

import torch
from PIL import Image

import mmrnn
from mmrnn.data import Collator
from mmrnn.prompts import RWKVChat
from mmrnn.tokenizers import DemoTokenizer
from mmrnn.training import Cosine, LanguageModel, Stage, optim
from mmrnn.training.loop.blank import blank_inputs
from mmrnn.training.loop.stepper import Stepper
from mmrnn.training.optim.param_groups import param_groups
from mmrnn.training.precision import LossScale
from mmrnn.training.reading.loader import StepBatches
from mmrnn.training.step import TrainStep
from mmrnn.types import Sample, Turn

MICRO_BATCHES = [
    [("what is it?", "a long answer of many words, by far the longest", 1), ("b?", "no", 1)],
    [("a?", "yes", 0), ("which of all of them?", "none", 0)],
    [("c?", "no", 0), ("d?", "I do not know", 0)],
    [("which one?", "this", 2), ("e?", "yes", 1)],
]
"""Of one step. With two ranks the first has images in its first, the second in its last micro-batch alone."""


class Gradient:
    key = "gradient"

    def open(self) -> Image.Image:
        return Image.linear_gradient("L").resize((48, 48)).convert("RGB")


def sample(question: str, answer: str, images: int) -> Sample:
    turns = (Turn("user", "<image>" * images + question), Turn("assistant", answer))
    return Sample(turns, (Gradient(),) * images)


class Repeat:
    """Loader of the same step without end."""

    samples, epoch_size = 0, 8

    def __init__(self, micro_batches: list) -> None:
        self.micro_batches = micro_batches

    def __next__(self) -> StepBatches:
        return StepBatches(self.micro_batches, [], [])


def losses_and_norms(
    world,
    strategy,
    *,
    overrides=("model=visualrwkv6_tiny",),
    parts=("connector", "backbone"),
    optimizer="AdamW",
    precision="fp32",
    stages=1,
    empty=False,
    objective=None,
):
    """Losses of the steps, and norms of their gradients.

    Args:
        parts: that the first stage trains; the second one trains all of the model.
        empty: the last micro-batch of all has no samples.
        objective: of the model; None: next-token prediction.
    """
    torch.manual_seed(0)
    model = mmrnn.build(mmrnn.compose(*overrides))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    step = TrainStep(model, LanguageModel(reduction="token") if objective is None else objective(model))
    if world.size > 1:
        step.blank = blank_inputs(model, cached=False)
    strategy.shard(step, precision)
    collate = Collator(DemoTokenizer(), RWKVChat(), dict(model.modalities))
    every = [collate([sample(*one) for one in group]) for group in MICRO_BATCHES]
    if empty:
        every[-1] = None
    own = every[world.rank * len(every) // world.size : (world.rank + 1) * len(every) // world.size]
    loader = Repeat(own)
    results = []
    for train in (parts, ("encoder", "connector", "backbone"))[:stages]:
        stage = Stage(train=train, steps=4, lr=1e-3, max_grad_norm=0.5)
        stage.apply_freezing(model)
        groups = param_groups(model, lr_mult={}, layer_lr_decay={})
        stepper = Stepper(
            step=step,
            stage=stage,
            optimizer=getattr(optim, optimizer)(groups, stage.lr),
            schedule=Cosine(),
            strategy=strategy,
            world=world,
            precision=precision,
            scale=LossScale(precision),
        )
        results += [(result.loss, result.norm) for result in stepper.steps(loader)]
    losses, norms = zip(*results, strict=True)
    return losses, norms
