"""`mmrnn convert`: published weights to a folder that mmrnn reads, and back; a model to a smaller one."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from mmrnn.cli.options import Parser, add_overrides, split_trusted, to_path
from mmrnn.config.error import ConfigError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def parser() -> Parser:
    """Parser of `mmrnn convert`."""
    made = Parser(
        "convert",
        "SOURCE TARGET [OVERRIDE ...] [OPTION ...]",
        """
Convert published weights to a folder that mmrnn reads; sizes, heads and vocabulary are inferred from the tensors.
With a file as TARGET, write the weights of such a folder (or of a run) under the names of the original project.
With quantize=int8, write a copy of a run (or of a model) with codes in place of weights.
Cards may name classes of other packages where the override trusted=[PACKAGE] names these.
""",
        """
  mmrnn convert RWKV-x060-World-1B6-v2.1-20240328-ctx4096.pth finch       a card and a checkpoint
  mmrnn train --config-dir finch backbone=finch weights.backbone=finch    train with them
  mmrnn convert VisualRWKV-v060-1B6-v1.0-20240612.pth visual              a whole model, for `mmrnn ask --run visual`
  mmrnn convert runs/DATE_TIME tuned.pth --part backbone --format rwkv6   and back, adapters (LoRA) merged
  mmrnn convert runs/DATE_TIME state.pth --part state --format rwkv7      the learned start states of an RWKV alone
  mmrnn convert runs/DATE_TIME small quantize=int8                        a smaller copy, for `mmrnn ask --run small`
""",
    )
    made.add_argument(
        "source", metavar="SOURCE", help="file, folder or owner/name on the Hugging Face hub; parts joined by commas"
    )
    made.add_argument("target", type=to_path, metavar="TARGET", help=f"new folder, or file ({', '.join(SUFFIXES)})")
    add_overrides(made)
    made.add_argument("--format", metavar="NAME", help="format of the tensors (default: recognised, for a folder)")
    made.add_argument(
        "--part", metavar="PART", help="backbone, connector or state of a whole model (default: its only part)"
    )
    return made


def main(arguments: Sequence[str]) -> None:
    """Write the target and print a summary.

    Raises:
        ConfigError: wrong usage.
        WeightsError: the weights are of no known format, of several, or incomplete.
    """
    options = parser().parse(arguments)
    source, target = options.source, options.target
    others, trusted = split_trusted(options.overrides)

    from mmrnn.checkpoints.convert import to_file, to_folder
    from mmrnn.checkpoints.quantize import chooses_quantizer

    if target.suffix in SUFFIXES:
        if not options.format:
            raise ConfigError(f"convert: {target} is a file, and its tensors need names; add --format NAME")
        if others:
            raise ConfigError(
                f"{others[0]}: a file of tensors has no configuration; leave it out, or name a new folder"
            )
        count = to_file(Path(source), target, options.format, options.part, trusted=trusted)
        print(f"{target}: {count} tensors")
        return
    if chooses_quantizer(others):
        _quantize(source, target, others, options, trusted)
        return
    report = to_folder(source.split(",") if "," in source else source, target, options.overrides, options.format)
    print(f"{target}: {report.loaded} tensors of the format {report.format}")
    for note in report.notes:
        print(f"  {note}")
    for reason in dict.fromkeys(report.ignored.values()):
        print(f"  left out {sum(why == reason for why in report.ignored.values())} tensors: {reason}")


def _quantize(source: str, target: Path, overrides: Sequence[str], options: Namespace, trusted: Sequence[str]) -> None:
    """Write a quantised copy, and print its size.

    Raises:
        ConfigError: an option of published weights, or a model that cannot be quantised.
    """
    from mmrnn.checkpoints.quantize import quantize_checkpoint

    if options.format or options.part:
        raise ConfigError("convert: --format and --part are for published weights; leave them out beside quantize")
    size = quantize_checkpoint(source, target, overrides, dirs=options.dirs, trusted=trusted)
    ratio = f"{size.before / size.after:.2f}"
    print(f"{target}: {size.layers} layers hold codes; {size.before:,} bytes became {size.after:,}, a ratio of {ratio}")
