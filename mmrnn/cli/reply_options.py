"""Options of the verbs that generate replies, the printing of a reply while it arrives, and the boxes in it."""

import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrnn.cli.options import Parser, one_of, to_path
from mmrnn.config.error import ConfigError

if TYPE_CHECKING:
    from mmrnn.data.image import ImageLike
    from mmrnn.prompts.boxes import GroundedBox
    from mmrnn.types import Prompt

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
FORMS = ("minigptv2", "cogvlm", "qwen_vl", "llava")

CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
"""Characters by which a text could change the terminal."""


def number(word: str) -> float:
    """A number.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        return float(word)
    except ValueError:
        raise ArgumentTypeError(f"expected a number, got {word!r}") from None


def whole(word: str) -> int:
    """A whole number from 0 on, in ASCII digits.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not (word.isascii() and word.isdecimal() and len(word) < 19):
        raise ArgumentTypeError(f"expected a whole number from 0 on, got {word!r}")
    return int(word)


def add_sampling(parser: Parser) -> None:
    """Choice of the next token."""
    parser.add_argument(
        "--temperature", type=number, default=0.0, metavar="T", help="divides the logits; 0: the most likely token"
    )
    parser.add_argument("--top-k", type=whole, metavar="K", help="sample among the K most likely tokens (default: all)")
    parser.add_argument(
        "--top-p", type=number, metavar="P", help="sample among the likeliest tokens of this probability (default: all)"
    )
    parser.add_argument(
        "--min-p",
        type=number,
        metavar="P",
        help="sample among tokens of this share of the likeliest one (default: all)",
    )
    parser.add_argument(
        "--repetition-penalty",
        type=number,
        metavar="R",
        help="divides the logits of repeated tokens (default: 1, none)",
    )
    parser.add_argument("--seed", type=whole, metavar="N", help="of the random numbers (default: none, they differ)")


def sampling(options: Namespace) -> dict[str, Any]:
    """Return the arguments of `Assistant.ask` that choose the next token.

    Raises:
        ConfigError: a value is outside its range, or has no effect.
    """
    from mmrnn.inference.sampler import Sampler

    names = ("top_k", "top_p", "min_p", "seed", "repetition_penalty")
    given = {name: vars(options)[name] for name in names if vars(options)[name] is not None}
    if not options.temperature and (without_effect := given.keys() - {"repetition_penalty"}):
        name = min(without_effect).replace("_", "-")
        raise ConfigError(f"--{name} has no effect at temperature 0, the most likely token; set --temperature, too")
    try:
        sampler = Sampler(temperature=options.temperature, **given)
    except ValueError as fault:
        raise ConfigError(f"--{fault}".replace("_", "-", 1)) from fault
    return {"sampler": sampler} if options.temperature or given else {}


def print_stream(texts: Iterator[str]) -> str:
    """Print a reply, on a terminal as it arrives, and return it.

    Args:
        texts: each the beginning of the next one.
    """
    shown = text = ""
    live = sys.stdout.isatty()
    for text in texts:
        if live:
            sys.stdout.write(text[len(shown) :].translate(CONTROLS))
            sys.stdout.flush()
            shown = text
    print("" if live else text)
    return text


def image_file(word: str) -> Path:
    """Path of an image to be written.

    Raises:
        ArgumentTypeError: its suffix is that of no image.
    """
    path = to_path(word)
    if path.suffix.lower() not in SUFFIXES:
        raise ArgumentTypeError(f"expected a file that ends with one of {', '.join(SUFFIXES)}; got {word!r}")
    return path


def add_boxes(parser: Parser) -> None:
    """File for the image with the boxes of the reply, and the form in which the reply has them."""
    parser.add_argument("--boxes", type=image_file, metavar="FILE", help="draw the boxes of the reply on the image")
    parser.add_argument(
        "--box-form",
        type=one_of(FORMS),
        metavar="FORM",
        help=f"form of the boxes: {', '.join(FORMS)} (default: that of the run's prompt)",
    )


def box_reader(
    options: Namespace, prompt: "Prompt", images: "Sequence[ImageLike]"
) -> "Callable[[str], list[GroundedBox]] | None":
    """Return the reader of the boxes in a reply about one image, in pixels; None: the prompt writes none.

    Raises:
        ConfigError: boxes are to be drawn, but the prompt writes none or there is not one image.
    """
    from PIL import Image

    from mmrnn.prompts.boxes import CODECS

    form = options.box_form or prompt.boxes
    if options.boxes and form is None:
        raise ConfigError(
            "--boxes: the prompt of the run writes no boxes (boxes=null); name the form that the model was trained "
            f"with: --box-form {', '.join(FORMS)}"
        )
    if len(images) != 1 or not isinstance(images[0], Image.Image):
        if options.boxes:
            raise ConfigError(f"--boxes: boxes are drawn on one image, not on {len(images)} images or a video")
        return None
    if form is None:
        return None
    width, height = images[0].size
    return lambda reply: CODECS[form].parse_all(reply, width, height)
