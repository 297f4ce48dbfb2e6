"""Time and memory of a training stage, estimated before it is started.

FLOPs: every parameter costs 2 per token in the forward pass, 2 for the gradient of its input, 2 for its own gradient
if it is trained, and 2 more where `grad_checkpointing` recomputes the block (6N and 8N: Kaplan et al., 2020).
Encoders are counted operation by operation. Attention scores and optimizer steps are not counted.

Memory: AdamW in mixed precision keeps 16 bytes per trained parameter (fp32 weight, gradient and two moments), a frozen
parameter takes 2 (bf16); both are sharded over all GPUs.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmrnn.bench.data_sheets import GPU
from mmrnn.model.vlm import VLM, Modality
from mmrnn.training.objectives.chunks import CHUNK_SIZE
from mmrnn.training.stage import Stage

USABLE = 0.92
"""Share of a GPU's memory that a run can fill; the rest is the context, the workspace of products, fragmentation."""


class PartCost(NamedTuple):
    """One part of a model: its parameters, those of them that are trained, FLOPs of a sample in a training step."""

    name: str
    parameters: int
    trained: int
    flops: float


@dataclass(frozen=True)
class StepCost:
    """FLOPs of training steps.

    Attributes:
        token: of a position of the backbone.
        inputs: by modality, of an input: encoder and connector.
    """

    token: float
    inputs: Mapping[str, float]

    def flops(self, tokens: int, inputs: Mapping[str, int]) -> float:
        """Return the FLOPs of so many positions and inputs of each modality."""
        return tokens * self.token + sum(count * self.inputs[name] for name, count in inputs.items())


@dataclass(frozen=True)
class Plan:
    """Estimate of one stage on a number of equal GPUs.

    Attributes:
        parts: in the order of the data flow.
        tokens: positions of the backbone per sample, padding included.
        samples: of the whole stage.
        batch_size: samples of a step.
        gpu: kind of GPU.
        gpus: number of them.
        mfu: model FLOPs utilisation: share of the peak that a run reaches.
        width: of the backbone.
        depth: of the backbone.
        vocab: of the backbone.
        recomputed: number of blocks of the backbone that are recomputed in the backward pass.
    """

    parts: tuple[PartCost, ...]
    tokens: int
    samples: int
    batch_size: int
    gpu: GPU
    gpus: int
    mfu: float
    width: int
    depth: int
    vocab: int
    recomputed: int

    @property
    def flops(self) -> float:
        """FLOPs of the stage."""
        return self.samples * sum(part.flops for part in self.parts)

    @property
    def seconds(self) -> float:
        """Duration of the stage."""
        return self.flops / (self.mfu * self.gpu.flops * self.gpus)

    @property
    def tokens_per_second(self) -> float:
        """Positions of the backbone per second, all GPUs together."""
        return self.samples * self.tokens / self.seconds

    def weight_bytes(self, part: PartCost, gpus: int) -> float:
        """Bytes per GPU for the weights, gradients and moments of a part."""
        return (16 * part.trained + 2 * (part.parameters - part.trained)) / gpus

    def gathered_bytes(self, gpus: int) -> float:
        """Bytes for the two blocks that are whole at one time where weights are sharded."""
        return 0.0 if gpus == 1 else 2 * 2 * self.parts[-1].parameters / self.depth

    def activation_bytes(self, samples: int) -> float:
        """Bytes of a micro-batch of so many samples: inputs and activations of the blocks, logits and their gradient.

        A block keeps about 34 values of its width per token, and 4 of the width of its feed-forward layer (3.5 to 4
        times as wide), in bf16. Logits exist for one chunk of the loss, in bf16 and fp32, with probabilities and
        gradients.
        """
        tokens = samples * self.tokens
        block = tokens * 100 * self.width
        kept = self.depth - self.recomputed + bool(self.recomputed)  # one recomputed block at a time
        blocks = block * kept + tokens * self.recomputed * self.width * 4
        return blocks + min(tokens, CHUNK_SIZE) * self.vocab * 20

    def memory_bytes(self, samples: int, gpus: int | None = None) -> float:
        """Bytes per GPU with a micro-batch of so many samples."""
        gpus = gpus or self.gpus
        weights = sum(self.weight_bytes(part, gpus) for part in self.parts)
        return weights + self.gathered_bytes(gpus) + self.activation_bytes(samples)

    def fits(self, samples: int, gpus: int | None = None) -> bool:
        """True where a micro-batch of so many samples fits into the memory of every GPU."""
        return self.memory_bytes(samples, gpus) <= USABLE * self.gpu.memory * 2**30

    def micro_batch(self) -> int:
        """Largest micro-batch per GPU that fits and divides the share of a step; 0: not even one sample fits."""
        share = max(1, self.batch_size // self.gpus)
        return next((size for size in range(share, 0, -1) if share % size == 0 and self.fits(size)), 0)

    def fewest_gpus(self) -> int | None:
        """Smallest number of GPUs on which one sample at a time fits; None: on no number up to 1024."""
        counts = [*range(1, 9), *range(16, 1025, 8)]
        return next((count for count in counts if self.fits(1, count)), None)


def plan_stage(
    model: VLM,
    stage: Stage,
    gpu: GPU,
    *,
    gpus: int = 1,
    mfu: float = 0.35,
    text_tokens: int = 170,
    padded_to: int | None = None,
) -> Plan:
    """Estimate a stage, every sample with one input of each modality.

    Args:
        model: may be on the meta device.
        stage: what is trained, and on how many samples.
        gpu: kind of GPU.
        gpus: number of them.
        mfu: share of the peak that a run reaches.
        text_tokens: tokens of text in a sample.
        padded_to: positions to which every sample is padded; None: no padding.

    Raises:
        ValueError: the model has no language model.
    """
    backbone = model.backbone
    if backbone.width is None:
        raise ValueError(f"{type(backbone).__name__} is no language model: there is nothing to plan by its tokens")
    slots = sum(modality.layout(*modality.image.size).tokens for modality in model.modalities.values())
    tokens = padded_to or slots + text_tokens
    modalities = [part for name, one in model.modalities.items() for part in _modality_costs(name, one, stage)]
    language = _language_costs(model, stage, tokens, behind=any(part.trained for part in modalities))
    return Plan(
        parts=(*modalities, *language),
        tokens=tokens,
        samples=stage.steps * stage.batch_size,
        batch_size=stage.batch_size,
        gpu=gpu,
        gpus=gpus,
        mfu=mfu,
        width=backbone.width,
        depth=backbone.depth,
        vocab=backbone.vocab,
        recomputed=_recomputed(model),
    )


def step_cost(model: VLM, stage: Stage, cached: Collection[str] = ()) -> StepCost | None:
    """Return the FLOPs of training steps; None where they are not known: no language model, inputs of several sizes.

    Args:
        model: on the meta device, as the encoders are run.
        stage: says what is trained.
        cached: modalities whose encoders do not run, as their features are cached.
    """
    several_sizes = any(modality.image.variable_size for modality in model.modalities.values())
    if model.backbone.width is None or several_sizes:
        return None
    inputs, behind = {}, False
    for name, modality in model.modalities.items():
        encoder, connector = _modality_costs(name, modality, stage)
        inputs[name] = connector.flops + (0.0 if name in cached else encoder.flops)
        behind |= encoder.trained + connector.trained > 0
    return StepCost(sum(part.flops for part in _language_costs(model, stage, 1, behind)), inputs)


def _language_costs(model: VLM, stage: Stage, tokens: int, behind: bool) -> list[PartCost]:
    """Costs of hook and backbone; `behind`: a modality is trained."""
    backbone = model.backbone
    language = [("hook", model.hook)] if model.hook is not None else []
    share = _recomputed(model) / backbone.depth
    costs = []
    for name, module in (*language, ("backbone", backbone)):
        forward = 2.0 * tokens * sum(parameter.numel() for parameter in module.parameters())
        costs.append(_part_cost(name, name, module, stage, forward, behind, share))
    return costs


def _recomputed(model: VLM) -> int:
    """Number of blocks of the backbone that recompute their activations."""
    every = model.backbone.grad_checkpointing
    return len(range(0, model.backbone.depth, every)) if every else 0


def _modality_costs(name: str, modality: Modality, stage: Stage) -> Iterator[PartCost]:
    """Costs of the encoder and of the connector, which reads the tokens of the encoder."""
    path, (height, width) = f"modalities.{name}", modality.image.size
    encoder = _part_cost(
        f"{name} encoder", f"{path}.encoder", modality.encoder, stage, encoder_flops(modality), behind=False
    )
    yield encoder
    tokens = modality.encoder.layout(height, width).tokens
    forward = 2.0 * tokens * sum(parameter.numel() for parameter in modality.connector.parameters())
    behind = encoder.trained > 0
    yield _part_cost(f"{name} connector", f"{path}.connector", modality.connector, stage, forward, behind)


def encoder_flops(modality: Modality) -> float:
    """FLOPs of the forward pass of one input, counted on the meta device."""
    encoder, size = modality.encoder, modality.image.size
    shape = (1, *size) if modality.image.resize == "none" else (1, 3, *size)
    with FlopCounterMode(display=False) as counter:
        device = next((parameter.device for parameter in encoder.parameters()), torch.device("meta"))
        encoder(torch.empty(shape, device=device))
    return float(counter.get_total_flops())


def _part_cost(
    name: str, path: str, module: nn.Module, stage: Stage, forward: float, behind: bool, recomputed: float = 0.0
) -> PartCost:
    """Cost of a part whose forward pass takes `forward` FLOPs.

    Args:
        behind: something in front of it is trained.
        recomputed: share of its blocks that are recomputed in the backward pass.
    """
    sizes = {known: parameter.numel() for known, parameter in module.named_parameters(prefix=path)}
    total, trained = sum(sizes.values()), sum(size for known, size in sizes.items() if stage.trains(known))
    passes = 1.0
    if behind or trained:
        passes += 1 + recomputed + (trained / total if total else 0)
    return PartCost(name, total, trained, passes * forward)
