"""`mmrnn ask`: answer a question about an image with a trained model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmrnn.cli.options import Parser, add_max_new_tokens, add_run, split_trusted, to_path
from mmrnn.config.error import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

RUNS = Path("runs")


def parser() -> Parser:
    """Parser of `mmrnn ask`."""
    made = Parser(
        "ask",
        "[IMAGE] QUESTION [trusted=[PACKAGE,...]] [OPTION ...]",
        """
Answer a question about an image with a trained model. With the tag <video> in the question, IMAGE is a video: an
animated image, a folder of frames, or a film (mmrnn[video]). Inputs of other modalities come from a JSON file.
A model whose configuration names classes of other packages is loaded where trusted=[PACKAGE] names these.
""",
        """
  mmrnn ask photo.jpg "what is this?"
  mmrnn ask photo.jpg "how many things are there?" --run runs/2026-01-31_12-00-00
  mmrnn ask clip.gif "<video> what happens?"
  mmrnn ask photo.jpg "what is this?" --run their_run trusted=[their_package]
  mmrnn ask table.jpg "<image> <state> what is left of the cup?" --observations table.json
""",
    )
    made.add_argument("image", nargs="?", metavar="IMAGE", help="file of an image or a video, or a folder of frames")
    made.add_argument("question", metavar="QUESTION", help="the question, in quotation marks")
    add_run(made)
    add_max_new_tokens(made)
    made.add_argument(
        "--observations",
        type=to_path,
        metavar="FILE",
        help='JSON: {"state": [[0.1, 0.2], [0.3, 0.4]]} is one matrix (objects x features) for the tag <state>',
    )
    return made


def main(arguments: Sequence[str]) -> None:
    """Print the answer.

    Raises:
        ConfigError: wrong usage, no finished run, an image that cannot be opened, or a model that generates nothing.
    """
    words, trusted = split_trusted(arguments)
    options = parser().parse(words)
    if options.image is None and options.observations is None:
        raise ConfigError('ask: name an image and a question: mmrnn ask photo.jpg "what is this?"')
    folder = options.run or newest(RUNS)

    from mmrnn.data.image import open_image
    from mmrnn.data.video import VIDEO
    from mmrnn.inference.load import load

    try:
        image, question = options.image, options.question
        if image is not None and VIDEO not in question:
            image = open_image(image)
        observations = read_observations(options.observations, question) if options.observations else None
        assistant = load(folder, trusted=trusted)
        reply = assistant.ask(image, question, observations=observations, max_new_tokens=options.max_new_tokens)
    except ValueError as fault:
        raise ConfigError(str(fault)) from fault
    print(reply)


def read_observations(file: Path, question: str) -> dict[str, tuple["Tensor", ...]]:
    """Matrices of a JSON file, by modality.

    Raises:
        ConfigError: the file cannot be read, or its observations do not match the tags of the question.
    """
    from mmrnn.data.observations import parse_observations
    from mmrnn.types.sample import Turn

    try:
        given = json.loads(file.read_text(encoding="utf-8"))
    except OSError as fault:
        raise ConfigError(f"--observations: {file} cannot be read: {fault.strerror}") from fault
    except (ValueError, RecursionError) as fault:
        raise ConfigError(f"--observations: {file} is not JSON ({fault})") from fault
    try:
        return parse_observations(given, [Turn("user", question)])
    except ValueError as fault:
        raise ConfigError(f"--observations: {file}: {fault}") from fault


def newest(runs: Path) -> Path:
    """Folder of the run that was finished last.

    Raises:
        ConfigError: there is none.
    """
    from mmrnn.io.shards import MODEL

    finished = sorted(runs.glob(f"**/{MODEL}*"), key=lambda path: path.stat().st_mtime)
    if not finished:
        raise ConfigError(f"there is no finished run in {runs}/; train one (`mmrnn train`) or name one with --run DIR")
    return finished[-1].parent
