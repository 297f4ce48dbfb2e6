"""mmrnn convert SOURCE FOLDER [--format NAME] [OVERRIDE ...]
mmrnn convert FOLDER FILE --format NAME [--part PART]

Turn published weights into a folder that mmrnn reads, with sizes, heads and vocabulary found in them; or write the
weights of such a folder (or of a run) as the original project names them.

  mmrnn convert RWKV-x060-World-1B6-v2.1-20240328-ctx4096.pth finch       a card and a checkpoint
  mmrnn train --config-dir finch backbone=finch weights.backbone=finch    what they are for
  mmrnn convert VisualRWKV-v060-1B6-v1.0-20240612.pth visual              a whole model, for `mmrnn ask --run visual`
  mmrnn convert runs/DATE_TIME tuned.pth --part backbone --format rwkv6   and back

SOURCE is a file, a folder or owner/name on the Hugging Face hub; several that complete each other are joined by commas.
"""

from collections.abc import Sequence
from pathlib import Path

from mmrnn.config.error import ConfigError

OPTIONS = ("--format", "--part")
ENDS = (".safetensors", ".pth", ".pt", ".bin")


def main(arguments: Sequence[str], dirs: Sequence[str] = ()) -> None:
    """Write, and say what was found.

    Raises:
        ConfigError: wrong usage.
        WeightsError: the weights are of no known format, of several, or incomplete.
    """
    words, options = _parse(arguments)
    if len(words) < 2:
        raise ConfigError(
            "convert: name a source and a target: mmrnn convert FILE FOLDER, or mmrnn convert FOLDER FILE"
        )
    source, target, *overrides = words

    from mmrnn.checkpoints.convert import to_file, to_folder

    if Path(target).suffix in ENDS:
        if "--format" not in options:
            raise ConfigError(f"convert: say how the tensors of {target} shall be named: --format NAME")
        count = to_file(Path(source), Path(target), options["--format"], options.get("--part"))
        print(f"{target}: {count} tensors")
        return
    report = to_folder(source.split(",") if "," in source else source, Path(target), overrides, options.get("--format"))
    print(f"{target}: {report.loaded} tensors of the format {report.format}")
    for note in report.notes:
        print(f"  {note}")
    for reason in dict.fromkeys(report.ignored.values()):
        print(f"  left out {sum(why == reason for why in report.ignored.values())} tensors: {reason}")


def _parse(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    words, options = [], {}
    rest = iter(arguments)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in OPTIONS:
            options[name] = value if equals else next(rest, "")
        elif word.startswith("--"):
            raise ConfigError(f"{word}: convert has no such option; it has {' and '.join(OPTIONS)}")
        else:
            words.append(word)
    return words, options
