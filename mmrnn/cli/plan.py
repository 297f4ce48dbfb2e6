"""`mmrnn plan`: time and memory of a training run, before it is started."""

from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmrnn.cli.options import Parser, add_overrides, natural
from mmrnn.config.coerce import did_you_mean
from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from mmrnn.training.plan import Plan


def parser() -> Parser:
    """Parser of `mmrnn plan`."""
    made = Parser(
        "plan",
        "[OVERRIDE ...] [gpus=N] [gpu=NAME] [OPTION ...]",
        """
Estimate FLOPs, hours and memory of a training run on a number of equal GPUs. Nothing is loaded or trained. The
formulas stand in docs/training.md: parameters times tokens, weights and moments sharded over all GPUs.
""",
        """
  mmrnn plan model=visualrwkv6_7b recipe=visualrwkv6_instruct gpus=8 gpu=a100_80g
  mmrnn plan model=llava15_7b recipe=llava15_instruct backbone.grad_checkpointing=1 gpus=8
""",
    )
    add_overrides(made)
    made.add_argument("--mfu", type=share, default=0.35, metavar="SHARE", help="share of the peak that the run reaches")
    made.add_argument("--text-tokens", type=natural, default=170, metavar="N", help="tokens of text in a sample")
    made.add_argument("--padded", action="store_true", help="every sample is padded to max_length")
    return made


def share(word: str) -> float:
    """A number above 0 and up to 1.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        value = float(word)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise ArgumentTypeError(f"expected a share between 0 and 1, got {word!r}")
    return value


def main(arguments: Sequence[str]) -> None:
    """Print a table for every stage.

    Raises:
        ConfigError: the configuration does not fit, or the GPU is unknown.
    """
    from rich.console import Console

    options = parser().parse(arguments)
    words, gpus, gpu = _split_gpus(options.overrides)
    for name, plan in plan_run(words, options, gpus, gpu):
        console = Console(highlight=False, soft_wrap=True)
        console.print(parts_table(name, plan))
        console.print(summary(plan, gpu))


def plan_run(words: Sequence[str], options: Namespace, gpus: int, gpu: str) -> "list[tuple[str, Plan]]":
    """Plans of the stages of a configuration, by name."""
    from mmrnn.cli.show import gc_paused, on_meta

    with gc_paused():
        from mmrnn.bench.data_sheets import GPUS
        from mmrnn.config.instantiate import instantiate
        from mmrnn.config.tree import plain
        from mmrnn.config.validate import check
        from mmrnn.training.plan import plan_stage

        cfg = compose(*words, dirs=options.dirs)
        check(cfg, needs=("stage",))
        if gpu not in GPUS:
            raise ConfigError(
                f"gpu={gpu}: no such GPU{did_you_mean(gpu, GPUS) or '; there are ' + ', '.join(sorted(GPUS))}"
            )
        model = on_meta(plain(cfg), cfg.trusted)
        if model.backbone.width is None:
            raise ConfigError(f"backbone: {type(model.backbone).__name__} is no language model; choose one to plan")
        settings: dict[str, Any] = {"gpus": gpus, "mfu": options.mfu, "text_tokens": options.text_tokens}
        padded = cfg.max_length if options.padded else None
        stages = instantiate(plain(cfg)["stage"], trusted=cfg.trusted)
        return [
            (name, plan_stage(model, stage, GPUS[gpu], padded_to=padded, **settings)) for name, stage in stages.items()
        ]


def _split_gpus(words: Sequence[str]) -> tuple[list[str], int, str]:
    """Return the overrides without `gpus=` and `gpu=`, and the values of these two."""
    found = {"gpus": "1", "gpu": "a100_80g"}
    others = []
    for word in words:
        key, _, value = word.partition("=")
        if key in found:
            found[key] = value
        else:
            others.append(word)
    try:
        return others, natural(found["gpus"]), found["gpu"]
    except ArgumentTypeError as fault:
        raise ConfigError(f"gpus: {fault}") from None


def parts_table(stage: str, plan: "Plan") -> "Table":
    """Parameters, FLOPs and memory of every part in a stage."""
    from rich.table import Table

    from mmrnn.cli.show import rounded

    table = Table(title=f"stage {stage}", title_justify="left")
    for heading in ("part", "parameters", "trained", "TFLOPs a sample", "memory a GPU"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for part in plan.parts:
        numbers = rounded(part.parameters), rounded(part.trained), f"{part.flops / 1e12:.3g}"
        table.add_row(part.name, *numbers, gibibytes(plan.weight_bytes(part, plan.gpus)))
    return table


def summary(plan: "Plan", gpu: str) -> str:
    """Sentences below the table."""
    micro, fewest = plan.micro_batch(), plan.fewest_gpus()
    lines = [
        f"{plan.samples:,} samples of {plan.tokens} positions: {plan.flops:.3g} FLOPs",
        f"{plan.gpus} x {gpu} at {plan.mfu:.0%} of {plan.gpu.flops / 1e12:.0f} TFLOPs per second: "
        f"{hours(plan.seconds)}, {plan.tokens_per_second:,.0f} tokens per second",
    ]
    if micro:
        accumulation = max(1, plan.batch_size // (plan.gpus * micro))
        lines.append(
            f"memory: {gibibytes(plan.memory_bytes(micro))} of {plan.gpu.memory} GiB with {micro} samples at a time"
            f" (grad_accum_steps={accumulation})"
        )
    else:
        lines.append(
            f"memory: {gibibytes(plan.memory_bytes(1))} with one sample at a time: too much for {plan.gpu.memory} GiB"
        )
    lines.append(f"smallest number of such GPUs: {fewest or 'more than 1024'}")
    return "\n".join(lines)


def gibibytes(number: float) -> str:
    """`15.3 GiB`."""
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 / 20 else f"{number / 2**20:.1f} MiB"


def hours(seconds: float) -> str:
    """`6.7 hours`, `9.0 days`, `12 minutes`."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
