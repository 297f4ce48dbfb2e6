"""`mmrnn ask`: answer a question, about images or without them, with a trained model."""

import json
import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmrnn.cli.options import Parser, add_max_new_tokens, add_run, split_trusted, to_path
from mmrnn.cli.reply_options import add_boxes, add_sampling, box_reader, print_stream, sampling
from mmrnn.config.error import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from mmrnn.data.image import ImageLike
    from mmrnn.inference.assistant import Assistant

RUNS = Path("runs")


def parser() -> Parser:
    """Parser of `mmrnn ask`."""
    made = Parser(
        "ask",
        "[IMAGE ...] QUESTION [trusted=[PACKAGE,...]] [OPTION ...]",
        """
Answer a question with a trained model: about an image, about several, about each image of a folder (a line for each),
or without one. With tags <image> in the question, each stands for one image; without them, all come first. With the
tag <video>, IMAGE is a video: an animated image, a folder of frames, or a film (mmrnn[video]). Inputs of other
modalities come from a JSON file. A model whose configuration names classes of other packages is loaded where
trusted=[PACKAGE] names these.
""",
        """
  mmrnn ask photo.jpg "what is this?"
  mmrnn ask photo.jpg "how many things are there?" --run runs/2026-01-31_12-00-00
  mmrnn ask before.jpg after.jpg "what has changed?" --temperature 0.7 --top-p 0.9 --seed 1
  mmrnn ask photos/ "what is this?" --json                 one object a line
  mmrnn ask photo.jpg "where is the cat?" --boxes found.png  the boxes of the reply, drawn
  mmrnn ask "what is the capital of France?"
  mmrnn ask clip.gif "<video> what happens?"
  mmrnn ask photo.jpg "what is this?" --run their_run trusted=[their_package]
  mmrnn ask "<audio> what is said?" --audio clip.wav
  mmrnn ask table.jpg "<image> <state> what is left of the cup?" --observations table.json
""",
    )
    made.add_argument(
        "images", nargs="*", metavar="IMAGE", help="files of images or videos; a folder: its images, one by one"
    )
    made.add_argument("question", metavar="QUESTION", help="the question, in quotation marks")
    add_run(made)
    add_max_new_tokens(made)
    add_sampling(made)
    made.add_argument("--json", action="store_true", help="print an object a line: images, question, reply, boxes")
    add_boxes(made)
    made.add_argument(
        "--observations",
        type=to_path,
        metavar="FILE",
        help='JSON: {"state": [[0.1, 0.2], [0.3, 0.4]]} is one matrix (objects x features) for the tag <state>',
    )
    made.add_argument(
        "--audio",
        type=to_path,
        metavar="FILE",
        action="append",
        help="a file of sound for a tag <audio> of the question; once for each tag",
    )
    return made


def main(arguments: Sequence[str]) -> int:
    """Print the answer, or one for each image of a folder.

    Returns:
        The exit code: 1 where an image of a folder cannot be opened, or there is no box to draw.

    Raises:
        ConfigError: wrong usage, no finished run, an image that cannot be opened, or a model that generates nothing.
    """
    words, trusted = split_trusted(arguments)
    options = parser().parse(words)
    options.sampling = sampling(options)
    for word in (*options.images, options.question):
        if re.fullmatch(r"\w+=\[.*\]", word):
            raise ConfigError(f"{word}: no such setting; trusted=[PACKAGE] names packages beside mmrnn")
    if not options.images and not options.observations and not options.audio and Path(options.question).is_file():
        raise ConfigError(
            f'ask: {options.question} is a file; name an image and a question: mmrnn ask photo.jpg "what is this?"'
        )
    run = options.run or newest(RUNS)

    from mmrnn.data.image import open_image
    from mmrnn.data.video import VIDEO, list_images
    from mmrnn.inference.load import load

    try:
        video = VIDEO in options.question
        if not video and any(Path(word).is_dir() for word in options.images):
            if len(options.images) > 1 or options.boxes:
                raise ConfigError("ask: a folder is asked about alone, and without --boxes")
            files = list_images(Path(options.images[0]))
            return _ask_each(load(run, trusted=trusted), files, options)
        # Opened first, so that a wrong name does not wait for a model.
        images = [Path(word) if video else open_image(word) for word in options.images]
        given = read_observations(options.observations, options.question) if options.observations else {}
        if options.audio:
            from mmrnn.data.audio import read_audio

            given |= {"audio": tuple(map(read_audio, options.audio))}
        return _ask_once(load(run, trusted=trusted), images, given, options)
    except ValueError as fault:
        raise ConfigError(str(fault)) from fault


def _ask_once(
    assistant: "Assistant",
    images: Sequence["ImageLike"],
    observations: "dict[str, tuple[Tensor, ...]] | None",
    options: Namespace,
) -> int:
    """Print one reply, as it arrives on a terminal; draw its boxes."""
    read_boxes = box_reader(options, assistant.prompt, images)
    ask = {"observations": observations, "max_new_tokens": options.max_new_tokens, **options.sampling}
    if options.json:
        reply = assistant.ask(images, options.question, **ask)
        found = {"boxes": [box._asdict() for box in read_boxes(reply)]} if read_boxes else {}
        _print_json(options, options.images, reply=reply, **found)
    else:
        reply = print_stream(assistant.stream(images, options.question, **ask))
    if not options.boxes:
        return 0
    from mmrnn.data.draw_boxes import draw_boxes

    boxes = read_boxes(reply)
    if not boxes:
        print(f"mmrnn: the reply holds no box, so {options.boxes} is not written", file=sys.stderr)
        return 1
    draw_boxes(images[0], boxes).save(options.boxes)
    return 0


def _ask_each(assistant: "Assistant", files: Sequence[Path], options: Namespace) -> int:
    """Print a line for each image; one that cannot be opened is named, and the others are asked about."""
    from mmrnn.data.image import ImageError

    code = 0
    for file in files:
        try:
            reply = assistant.ask(file, options.question, max_new_tokens=options.max_new_tokens, **options.sampling)
        except ImageError as fault:
            code = 1
            if options.json:
                _print_json(options, [file], error=str(fault))
            else:
                print(f"mmrnn: {fault}", file=sys.stderr)
            continue
        if options.json:
            _print_json(options, [file], reply=reply)
        else:
            print(f"{file.name}\t{' '.join(reply.split())}", flush=True)
    return code


def _print_json(options: Namespace, images: Sequence[str | Path], **facts: object) -> None:
    line = {"images": [*map(str, images)], "question": options.question, **facts}
    print(json.dumps(line, ensure_ascii=False), flush=True)


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
