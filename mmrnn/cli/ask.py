"""mmrnn ask [IMAGE] QUESTION [--run DIR] [--max-new-tokens N] [--observations FILE]

Put a question about an image to a trained model: that of the newest finished run in runs/, or that of --run. With
the tag <video> in the question IMAGE is a video: a moving image, a folder of frames, or a film (mmrnn[video]).
What other modalities read stands in a JSON file: {"state": [[0.1, 0.2], [0.3, 0.4]]}, a matrix for each <state>.

  mmrnn ask photo.jpg "what is this?"
  mmrnn ask photo.jpg "how many things are there?" --run runs/2026-01-31_12-00-00
  mmrnn ask clip.gif "<video> what happens?"
  mmrnn ask table.jpg "<image> <state> what is left of the cup?" --observations table.json
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmrnn.config.error import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

RUNS = Path("runs")
OPTIONS = ("--run", "--max-new-tokens", "--observations")


def main(arguments: Sequence[str], dirs: Sequence[str] = ()) -> None:
    """Answer, a token at a time on a terminal.

    Raises:
        ConfigError: wrong usage, no finished run, an image that cannot be opened, or a model that says nothing.
    """
    words, options = _parse(arguments)
    if len(words) != 2 and not (len(words) == 1 and "--observations" in options):
        raise ConfigError('ask: name an image and a question: mmrnn ask photo.jpg "what is this?"')
    max_new_tokens = options.get("--max-new-tokens", "64")
    if not max_new_tokens.isdigit() or not int(max_new_tokens):
        raise ConfigError(f"--max-new-tokens: expected a number of tokens, got {max_new_tokens!r}")
    folder = Path(options["--run"]) if "--run" in options else newest(RUNS)

    from mmrnn.data.image import open_image
    from mmrnn.data.video import VIDEO
    from mmrnn.inference.load import load

    try:
        question, image = words[-1], words[0] if len(words) == 2 else None
        if image is not None and VIDEO not in question:
            image = open_image(image)
        seen = _read(options["--observations"], question) if "--observations" in options else None
        reply = load(folder).ask(image, question, observations=seen, max_new_tokens=int(max_new_tokens))
    except ValueError as fault:
        raise ConfigError(str(fault)) from fault
    print(reply)


def _read(file: str, question: str) -> dict[str, tuple["Tensor", ...]]:
    """
    Raises:
        ConfigError: the file cannot be read, or its observations are not those of the question.
    """
    from mmrnn.data.observations import observations
    from mmrnn.types.sample import Turn

    if not file:
        raise ConfigError('--observations: name a JSON file behind it, {"state": [[0.1, 0.2], [0.3, 0.4]]}')
    try:
        given = json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as fault:
        raise ConfigError(f"--observations: {file} cannot be read: {fault.strerror}") from fault
    except (ValueError, RecursionError) as fault:
        raise ConfigError(f"--observations: {file} is not JSON ({fault})") from fault
    try:
        return observations(given, [Turn("user", question)])
    except ValueError as fault:
        raise ConfigError(f"--observations: {file}: {fault}") from fault


def newest(runs: Path) -> Path:
    """The finished run that was written last.

    Raises:
        ConfigError: there is none.
    """
    from mmrnn.io.shards import MODEL

    finished = sorted(runs.glob(f"**/{MODEL}*"), key=lambda path: path.stat().st_mtime)
    if not finished:
        raise ConfigError(f"there is no finished run in {runs}/; train one (`mmrnn train`) or name one with --run DIR")
    return finished[-1].parent


def _parse(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    words, options = [], {}
    rest = iter(arguments)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in OPTIONS:
            options[name] = value if equals else next(rest, "")
        elif word.startswith("--"):
            raise ConfigError(f"{word}: ask has no such option; it has {', '.join(OPTIONS)}")
        else:
            words.append(word)
    return words, options
