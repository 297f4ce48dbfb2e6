"""Settings of a run that belong to no part, with their ranges; `conf/train.yaml` repeats the defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from mmrnn.types import (
    Bounds,
    Constraint,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Seed,
)

Precision = Literal["auto", "fp32", "bf16", "fp16"]
FrozenDtype = Literal["auto", "fp32", "bf16"]
OnSpike = Literal["warn", "skip", "stop"]


class DeviceName(Constraint):
    """Device: `cpu`, `cuda`, `cuda:1`, `mps`, ..."""

    def expected(self) -> str:
        """Return the condition."""
        return "that names a device (cpu, cuda:1, xpu, npu, mps)"

    def holds(self, value: str) -> bool:
        """Return True for a kind of device that mmrnn knows, here or elsewhere."""
        from mmrnn.config.device import is_device_name

        return is_device_name(value)


class StepRange(Constraint):
    """First and last step, counted from 1."""

    def expected(self) -> str:
        """Return the condition."""
        return "whose first step is at least 1 and not after the last"

    def holds(self, value: tuple[int, int]) -> bool:
        """Return True for a range that is not empty."""
        return 1 <= value[0] <= value[1]


EVAL_ROOT = "playground/data/eval"
"""Folder of all benchmarks in LLaVA's tree."""


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """Settings of `mmrnn eval`; `conf/eval.yaml` repeats the defaults.

    Attributes:
        run: folder of a run or a model, or `owner/name` on the hub; None: the newest finished run.
        root: folder of all benchmarks.
        out: folder of the results; None: in the folder of the run.
        trusted: packages beside mmrnn whose classes the cards may name.
        batch_size: questions that are asked at once.
        rank: choose the likeliest option of each question in place of a generated reply.
        num_beams: beginnings of a reply that beam search keeps; 1: the most likely token each time.
        length_penalty: power of the length that divides the log-probability of a reply, where there are beams.
        min_new_tokens: tokens before a reply may end.
        max_questions: ask the first ones alone; 0: all.
        feature_cache_gib: memory for the features of images in GiB; 0: encoded with every batch.
        device: None: a CUDA GPU where there is one.
        precision: of the forward pass.
    """

    run: str | None = None
    root: str = EVAL_ROOT
    out: str | None = None
    trusted: tuple[str, ...] = ()
    batch_size: PositiveInt = 64
    rank: bool = False
    num_beams: PositiveInt = 1
    length_penalty: Annotated[float, Bounds(ge=-50, le=50)] = 1.0
    min_new_tokens: NonNegativeInt = 0
    max_questions: NonNegativeInt = 0
    feature_cache_gib: NonNegativeFloat = 4.0
    device: Annotated[str, DeviceName()] | None = None
    precision: Precision = "fp32"


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Evaluation on held-out samples, and on benchmarks.

    Attributes:
        samples: held-out samples of each split at the end.
        every: steps between evaluations; 0: at the end alone.
        batch_size: questions.
        max_new_tokens: of an answer.
        distance: numbers of tokens of text between the images of a question and what follows them, for each of which
            all held-out questions are asked once more at the end.
        shots: numbers of answered questions of the same kind before a question, likewise.
        tasks: benchmarks that are run after training, by the names of their cards.
        root: folder of all benchmarks.
    """

    samples: NonNegativeInt = 720
    every: NonNegativeInt = 400
    batch_size: PositiveInt = 64
    max_new_tokens: PositiveInt = 32
    distance: tuple[PositiveInt, ...] = ()
    shots: tuple[PositiveInt, ...] = ()
    tasks: tuple[str, ...] = ()
    root: str = EVAL_ROOT


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a run.

    Attributes:
        seed: of torch and of the order of samples.
        trusted: packages beside mmrnn whose classes the cards may name.
        stages: of a recipe that trains in several runs (`mmrnn.config.recipe_stages`).
        teacher: checkpoint that recipes of distillation learn from.
        device: None: a CUDA GPU where there is one.
        precision: of the forward pass; `auto`: bf16 where the processor has instructions for it.
        frozen_dtype: of matrices that no stage trains; `auto`: bf16 on a GPU whose forward pass is in bf16, else fp32.
        max_length: positions of a row.
        workers: processes that prepare batches while a step is computed; 0: batches are prepared between the steps.
        loader_timeout: seconds to wait for a batch of the workers; 0: without end.
        max_skipped: share of the last 10,000 samples that may be left out.
        feature_cache_gib: memory for the features of a frozen encoder in GiB; 0: computed at every step.
        feature_folder: folder in which these features are kept, for other runs too; None: in memory alone.
        log_every: steps.
        profile: first and last step of the run that are traced; None: none.
        peak_tflops: peak of a device in 10^12 FLOPs per second, for the MFU; None: that of the vendor, where known.
        save_frozen: save what no stage trains.
        save_every_seconds: between checkpoints.
        max_save_share: of the duration of the run, for which training may stand still to save checkpoints; 1: no limit.
        keep_last: number of checkpoints that are kept.
        keep_every: steps between checkpoints that are kept for good and load like any model; 0: none.
        resume: `auto`: from the last checkpoint in the folder of the run; `never`; or the path of a checkpoint or run.
        max_bad_steps: steps in a row whose loss or gradient is not finite, with which a run ends.
        train_chunk: positions of the pieces that a recurrent backbone reads a row in, passing on its state; memory does
            not grow with the length of the row. 0: rows are read at once.
        horizon: pieces that a gradient reaches back over.
        compile: compile the blocks of the backbone with `torch.compile`.
        on_spike: what is done with a step whose loss is far above those before.
        ema: decay of a moving average of what learns, which is evaluated and saved in its place; 0: none.
        evaluate: evaluation on held-out samples.
    """

    seed: Seed = 0
    trusted: tuple[str, ...] = ()
    stages: Mapping[str, Any] = field(default_factory=dict)
    teacher: str | None = None
    device: Annotated[str, DeviceName()] | None = None
    precision: Precision = "auto"
    frozen_dtype: FrozenDtype = "auto"
    max_length: Annotated[int, Bounds(ge=2)] = 1024
    workers: NonNegativeInt = 1
    loader_timeout: NonNegativeFloat = 300.0
    max_skipped: Probability = 0.01
    feature_cache_gib: NonNegativeFloat = 4.0
    feature_folder: str | None = None
    log_every: PositiveInt = 10
    profile: Annotated[tuple[int, int], StepRange()] | None = None
    peak_tflops: PositiveFloat | None = None
    save_frozen: bool = True
    save_every_seconds: NonNegativeFloat = 60.0
    max_save_share: Annotated[float, Bounds(gt=0, le=1)] = 0.05
    keep_last: PositiveInt = 2
    keep_every: NonNegativeInt = 0
    resume: str = "auto"
    max_bad_steps: PositiveInt = 10
    on_spike: OnSpike = "warn"
    train_chunk: NonNegativeInt = 0
    horizon: PositiveInt = 1
    compile: bool = False
    ema: Fraction = 0.0
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
