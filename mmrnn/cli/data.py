"""`mmrnn data`: filter records, select them by features of their images, and caption images."""

from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence

from mmrnn.cli.options import Parser, add_max_new_tokens, add_run, natural, one_of, split_trusted, to_path
from mmrnn.cli.reply_options import number, whole
from mmrnn.config.error import ConfigError
from mmrnn.config.overrides import override_key
from mmrnn.io.disk import DiskFullError

ACTIONS = ("filter", "select", "caption")

OPTIONS = {
    "filter": (
        *("min_side", "max_aspect", "max_pixels", "min_chars", "max_chars"),
        *("script", "duplicates", "headers", "workers"),
    ),
    "select": ("clusters", "nearest", "seed", "device", "batch_size", "precision"),
    "caption": ("run", "question", "max_new_tokens", "device", "batch_size", "precision"),
}
"""Options of each action, beside `--strict`."""

KEYS = {"filter": ("data",), "select": ("data", "encoder", "weights"), "caption": ("data",)}
"""Groups of the configuration that each action reads."""

QUESTION = "Describe this image in detail."


def parser() -> Parser:
    """Parser of `mmrnn data`."""
    made = Parser(
        "data",
        "filter|select|caption OUT.jsonl [FOLDER] [OVERRIDE ...] [OPTION ...]",
        """
filter: write the records that keep all limits on their images and texts.
select: cluster the images of records by the features of an encoder (k-means), and write the records that are nearest
to the centre of each cluster.
caption: ask a trained model about every image of a folder or of records, and write its replies as records.

Records are read by any reader (data=llava data.file=...). Those of JSON and tables of text are written as they are, and
read by the same reader; those of tar shards and Parquet in the form of LLaVA, with their images in OUT_images. What
cannot be read is dropped; all that is dropped is counted by reason. A command that was stopped or killed continues when
it is repeated; until the output is whole, its work lies in OUT.jsonl.partial.
""",
        """
  mmrnn data filter large.jsonl data=llava data.file=all.jsonl data.image_folder=images --min-side 448
  mmrnn data filter english.jsonl data=webdataset data.file=shard.tar --script latin=0.9 --duplicates images
  mmrnn data select few.jsonl data=llava data.file=all.jsonl encoder=efficientnet_lite0 --clusters 100 --nearest 30
  mmrnn data caption new.jsonl photos/ --run runs/2026-01-31_12-00-00
  mmrnn data caption new.jsonl data=parquet "data.file='train-*.parquet'" --question "What is to be seen?"
""",
    )
    made.add_argument("action", type=one_of(ACTIONS), metavar="ACTION", help="filter, select or caption")
    made.add_argument("out", type=to_path, metavar="OUT.jsonl", help="file of the records that are written")
    made.add_argument(
        "words",
        nargs="*",
        metavar="WORD",
        help="data=READER data.KNOB=VALUE; select: encoder=CARD, weights.encoder=FILE; caption: a folder of images",
    )
    made.add_argument("--strict", action="store_true", help="stop at the first record or image that cannot be read")
    _add_filter(made)
    _add_select(made)
    group = made.add_argument_group("options of caption")
    add_run(group)
    group.add_argument("--question", default=QUESTION, metavar="TEXT", help="about each image, in the records, too")
    add_max_new_tokens(group)
    group = made.add_argument_group("options of select and caption")
    group.add_argument("--device", metavar="NAME", help="cpu, cuda, mps, ... (default: a CUDA GPU where there is one)")
    group.add_argument("--batch-size", type=natural, default=32, metavar="N", help="images that are read at once")
    precision = one_of(("fp32", "bf16", "fp16", "auto"))
    group.add_argument(
        "--precision", type=precision, default="fp32", metavar="TYPE", help="fp32, bf16, fp16; auto: bf16 where it pays"
    )
    return made


def _add_filter(made: Parser) -> None:
    group = made.add_argument_group("options of filter")
    group.add_argument("--min-side", type=natural, metavar="N", help="least pixels of a side of an image")
    group.add_argument("--max-aspect", type=number, metavar="R", help="largest ratio of the sides of an image")
    group.add_argument("--max-pixels", type=natural, metavar="N", help="most pixels of an image")
    group.add_argument("--min-chars", type=natural, metavar="N", help="least characters of the turns of a record")
    group.add_argument("--max-chars", type=natural, metavar="N", help="most characters of the turns of a record")
    group.add_argument(
        "--script",
        type=script_share,
        action="append",
        metavar="NAME[,NAME...]=SHARE",
        help="least share of the letters in scripts of Unicode: latin=0.9, han,hiragana,katakana=0.5; may be repeated",
    )
    group.add_argument(
        "--duplicates",
        type=one_of(("images", "records")),
        metavar="WHAT",
        help="drop records with the images of one that is kept (images), or with its images and turns (records)",
    )
    group.add_argument("--headers", action="store_true", help="read the headers of images alone, not their pixels")
    group.add_argument("--workers", type=natural, default=4, metavar="N", help="threads that open images")


def _add_select(made: Parser) -> None:
    group = made.add_argument_group("options of select")
    group.add_argument("--clusters", type=natural, metavar="N", help="number of clusters; needed")
    group.add_argument("--nearest", type=natural, metavar="N", help="records of a cluster that are kept; needed")
    group.add_argument("--seed", type=whole, default=0, metavar="N", help="of k-means")


def script_share(word: str) -> tuple[tuple[str, ...], float]:
    """Names of scripts and the share of letters in them.

    Raises:
        ArgumentTypeError: the word has another form.
    """
    names, equals, share = word.partition("=")
    if not equals or not names:
        raise ArgumentTypeError(f"expected scripts and a share, such as latin=0.9; got {word!r}")
    return tuple(name.strip().lower() for name in names.split(",")), number(share)


def main(arguments: Sequence[str]) -> int:
    """Write the records, and print how many there are and what was dropped.

    Returns:
        The exit code: 1 where nothing is kept.

    Raises:
        ConfigError: wrong usage, data or a model that cannot be read, an output that exists, or one that was begun with
            other settings.
    """
    from mmrnn.cli import data_run

    options = parser().parse(arguments)
    options.words, options.trusted = split_trusted(options.words)
    _check(options)
    run = {"filter": data_run.run_filter, "select": data_run.run_select, "caption": data_run.run_caption}
    try:
        return run[options.action](options)
    except (ConfigError, DiskFullError):
        raise
    except (ValueError, ImportError) as fault:
        raise ConfigError(f"data {options.action}: {fault}") from fault


def _check(options: Namespace) -> None:
    """Raise where an option or a word belongs to another action."""
    made, own = parser(), OPTIONS[options.action]
    for action, names in OPTIONS.items():
        for name in names:
            if name not in own and vars(options)[name] != made.get_default(name):
                raise ConfigError(f"--{name.replace('_', '-')}: an option of `mmrnn data {action}`; remove it")
    if options.out.suffix.lower() != ".jsonl":
        raise ConfigError(f"{options.out}: the output is a file of JSON lines; let its name end with .jsonl")
    if not options.out.parent.is_dir():
        raise ConfigError(f"{options.out}: there is no folder {options.out.parent}; make it first")
    for word in options.words:
        key = override_key(word).partition(".")[0].partition("@")[0]
        if "=" in word and key not in KEYS[options.action]:
            known = ", ".join(f"{name}=..." for name in KEYS[options.action])
            raise ConfigError(f"{word}: data {options.action} does not read it; it reads {known}")
