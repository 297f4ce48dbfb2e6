"""Distillation: a student learns the block outputs and the next-token distributions of a frozen teacher."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from mmrnn.model.vlm import VLM
from mmrnn.training.objectives.chunks import CHUNK_SIZE, map_chunks
from mmrnn.training.objectives.teacher import Lesson, Teacher, load_teacher
from mmrnn.types import (
    IGNORE,
    Batch,
    BlockHooks,
    ChecksKnobs,
    Expert,
    NonNegativeFloat,
    Objective,
    Output,
    PositiveFloat,
    PositiveInt,
    Sequence,
)

BLOCKS = "backbone.blocks."
"""Prefix of what block outputs can train."""


class TeacherForcing(BlockHooks):
    """Other block hooks around blocks whose inputs are replaced, with a record of their outputs.

    Args:
        inner: of the student.
        inputs: of the blocks, in order.

    Attributes:
        outputs: of the blocks, in order.
    """

    def __init__(self, inner: BlockHooks, inputs: tuple[Float[Tensor, "b t d"], ...]):
        self.inner, self.inputs = inner, inputs
        self.outputs: list[Tensor] = []

    def before(self, layer: int, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Return the input of block `layer` in place of what the block below gave."""
        return self.inner.before(layer, self.inputs[layer].to(x.dtype))

    def after(self, layer: int, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Change the output of block `layer` and record it."""
        self.outputs.append(self.inner.after(layer, x))
        return self.outputs[-1]

    def expert(self, layer: int) -> Expert | None:
        """Return the expert weights of block `layer`, or None."""
        return self.inner.expert(layer)


class Term(Objective):
    """Loss against one reading of the teacher."""

    needs_blocks = False

    def __init__(self, teacher: Teacher):
        self.teacher = teacher

    @abstractmethod
    def measure(self, model: VLM, output: Output, lesson: Lesson) -> Float[Tensor, ""]:
        """Compute the loss."""

    def __call__(self, model: VLM, output: Output) -> Float[Tensor, ""]:
        """Let the teacher read the batch, and compute the loss."""
        return self.measure(model, output, self.teacher.read(output.batch, blocks=self.needs_blocks))


class BlockOutputs(Term):
    """Mean squared error of the outputs of the student's blocks, each of which gets the teacher's input.

    The student's embedding, encoders and head do not run. Padding does not count.
    """

    needs_backbone = False
    needs_blocks = True

    def num_units(self, batch: Batch) -> int:
        """Number of positions without padding."""
        return batch.sequence.size

    def measure(self, model: VLM, output: Output, lesson: Lesson) -> Float[Tensor, ""]:
        """Mean over positions, channels and blocks.

        Raises:
            ValueError: something else than blocks is trained, which would get no gradient.
        """
        trained = (name for name, parameter in model.named_parameters() if parameter.requires_grad)
        stray = [name for name in trained if not name.startswith((BLOCKS, "hook."))]
        if stray and torch.is_grad_enabled():
            raise ValueError(
                f"objective: block outputs train the blocks of the backbone, and {stray[0]} would get no gradient; set "
                "the `train` of the stage to [backbone.blocks.*], or objective.logits above 0"
            )
        inner = BlockHooks() if model.hook is None else model.hook.start(lesson.sequence, None)
        forced = TeacherForcing(inner, lesson.inputs[:-1])
        model.run_backbone(lesson.sequence, hook=forced)
        real = _real(lesson.sequence)
        losses = [
            (found.float() - goal.float()).square().mean(-1).masked_fill(~real, 0).sum()
            for found, goal in zip(forced.outputs, lesson.inputs[1:], strict=True)
        ]
        return torch.stack(losses).mean() / real.sum().clamp(min=1)


class NextTokens(Term):
    """Kullback-Leibler divergence of the student's next-token distributions from the teacher's, times T squared.

    arXiv 1503.02531, section 2.

    Args:
        teacher: whose distributions are learned.
        temperature: T, by which the logits of both are divided.
        everywhere: all positions but padding count, not only those whose next token is trained on.
        chunk_size: positions whose logits are computed at once.
    """

    def __init__(self, teacher: Teacher, *, temperature: float, everywhere: bool, chunk_size: int):
        super().__init__(teacher)
        self.temperature, self.everywhere, self.chunk_size = temperature, everywhere, chunk_size

    def num_units(self, batch: Batch) -> int:
        """Number of positions that count."""
        return int(self._counted(batch.sequence).sum())

    def measure(self, model: VLM, output: Output, lesson: Lesson) -> Float[Tensor, ""]:
        """Mean over the positions that count."""
        used = self._counted(output.sequence).nonzero(as_tuple=True)
        divergences = map_chunks(
            partial(self._divergence, model), self.chunk_size, output.hidden[used], lesson.hidden[used]
        )
        return divergences.sum() / max(divergences.numel(), 1)

    def _counted(self, sequence: Sequence) -> Bool[Tensor, "b t"]:
        return _real(sequence) if self.everywhere else sequence.targets != IGNORE

    def _divergence(
        self, model: VLM, hidden: Float[Tensor, "n d"], taught: Float[Tensor, "n e"]
    ) -> Float[Tensor, "1 n"]:
        goal = (self.teacher.head(taught).float() / self.temperature).log_softmax(-1)
        found = (model.head(hidden).float() / self.temperature).log_softmax(-1)
        divergence = F.kl_div(found, goal, log_target=True, reduction="none").sum(-1)
        return self.temperature**2 * divergence[None]


class Distillation(Objective, ChecksKnobs):
    """A frozen teacher's block outputs by mean squared error, and its next-token distributions by KL divergence.

    MOHAWK (arXiv 2408.10189) and RADLADS (arXiv 2505.03005) turn a transformer into a linear RNN so: first the blocks,
    each given the teacher's input (`logits=0`), then the whole (`blocks=0`). The teacher reads the batches of the
    student, so that both must lay out images and number tokens alike. It is frozen and without a graph, it is no part
    of what is saved, and under DDP and FSDP each process holds a whole copy of it.

    Args:
        teacher: folder of a checkpoint or run, `owner/name` on the hub, or a preset.
        weights: of a preset: file, folder or name on the hub.
        blocks: weight of the block outputs.
        logits: weight of the next-token distributions.
        temperature: of both distributions.
        positions: of these distributions: those whose next token is trained on, or all but padding.
        chunk_size: positions whose logits are computed at once.

    Raises:
        ValueError: there is no teacher, or it does not fit the student.
    """

    def __init__(
        self,
        model: VLM,
        *,
        teacher: str | None = None,
        weights: str | None = None,
        blocks: NonNegativeFloat = 1.0,
        logits: NonNegativeFloat = 1.0,
        temperature: PositiveFloat = 2.0,
        positions: Literal["targets", "all"] = "targets",
        chunk_size: PositiveInt = CHUNK_SIZE,
    ):
        knobs = {"teacher": teacher, "blocks": blocks, "logits": logits}
        for name, fault in self.knob_faults(knobs):
            raise ValueError(f"{name}: {fault}")
        self.teacher = load_teacher(teacher, weights, (model.config or {}).get("trusted") or ())
        check_pair(self.teacher.model, model, blocks=blocks > 0, logits=logits > 0)
        self.needs_backbone = logits > 0
        self.needs_images = not self.teacher.shares_encoders(model)
        everywhere = positions == "all"
        kinds = [
            (blocks, BlockOutputs(self.teacher)),
            (
                logits,
                NextTokens(self.teacher, temperature=temperature, everywhere=everywhere, chunk_size=chunk_size),
            ),
        ]
        self._terms: list[tuple[float, Term]] = [(weight, term) for weight, term in kinds if weight]

    @classmethod
    def knob_faults(cls, knobs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield that there is no teacher, or nothing that it teaches. See `ChecksKnobs`."""
        if knobs["teacher"] is None:
            yield "teacher", "a teacher is required; name the folder of a trained model (for a recipe, teacher=FOLDER)"
        if not knobs["blocks"] and not knobs["logits"]:
            yield "logits", "blocks and logits are both 0, so that nothing is learned; set one of them above 0"

    def terms(self) -> list[tuple[float, Objective]]:
        """The weighted losses of blocks and of next tokens, each with units of its own."""
        return [*self._terms]

    def losses(self, model: VLM, output: Output) -> list[Float[Tensor, ""]]:
        """Compute the losses of all terms from one reading of the teacher."""
        blocks = any(term.needs_blocks for _, term in self._terms)
        lesson = self.teacher.read(output.batch, blocks=blocks)
        return [term.measure(model, output, lesson) for _, term in self._terms]

    def __call__(self, model: VLM, output: Output) -> Float[Tensor, ""]:
        """Weighted sum of the losses."""
        found = zip(self._terms, self.losses(model, output), strict=True)
        return sum(weight * loss for (weight, _), loss in found)


def check_pair(teacher: VLM, student: VLM, *, blocks: bool, logits: bool) -> None:
    """Check that a teacher can read the batches of a student, and that what is compared has one size.

    Args:
        blocks: block outputs are compared.
        logits: next-token distributions are compared.

    Raises:
        ValueError: they do not fit.
    """
    others = dict(teacher.modalities.items())
    for name, modality in student.modalities.items():
        other, size = others.get(name), modality.image.size
        if other is None or repr(other.image) != repr(modality.image) or other.layout(*size) != modality.layout(*size):
            raise ValueError(f"teacher: it lays out {name} inputs in another way; take its encoder and connector")
    cards = [(model.config or {}).get("tokenizer") for model in (teacher, student)]
    if all(cards) and cards[0] != cards[1]:
        raise ValueError("teacher: it numbers tokens in another way; take its tokenizer")
    sizes = {"vocab": logits, "width": blocks, "depth": blocks}
    for name in (name for name, compared in sizes.items() if compared):
        theirs, own = (getattr(model.backbone, name) for model in (teacher, student))
        if theirs != own:
            raise ValueError(f"teacher: its backbone has {name} {theirs}, and the student {own}; they must agree")


def _real(sequence: Sequence) -> Bool[Tensor, "b t"]:
    """Positions that are no padding."""
    return torch.ones_like(sequence.ids, dtype=torch.bool) if sequence.padding is None else ~sequence.padding
