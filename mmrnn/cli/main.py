"""`mmrnn <verb>`: the command line.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted.
"""

import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from mmrnn import __version__
from mmrnn.config.coerce import near
from mmrnn.config.error import ConfigError

VERBS = {
    "list": "what can be chosen: the groups, or the options of one",
    "show": "what a choice amounts to: parts, parameters, tokens, state; nothing is loaded",
    "train": "train a model, or a sweep of them with -m",
    "ask": "put a question about an image to a trained model",
    "report": "compare runs: a table and an image",
    "bench": "time this library beside what else is installed",
    "convert": "published weights into a folder with a card, or back",
}

HELP = """usage: mmrnn VERB [ARGUMENTS]

{verbs}

A model is chosen by overrides: GROUP=OPTION takes a card, GROUP.KNOB=VALUE sets one of its knobs.

  mmrnn list connector
  mmrnn show model=visualrwkv6_7b connector=qformer
  mmrnn train model=visualrwkv6_small scan=multidirectional seed=1
  mmrnn train -m connector=linear,mlp,qformer seed=1,2,3

options of every verb:
  --config-dir DIR   a further folder of cards, laid out like conf/ (may be repeated)
  --debug            show the traceback of a failure
  -h, --help         help, also behind a verb
  --version          the version of mmrnn"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; faults of the user's are told in a sentence on stderr.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return _run(arguments) or 0
    except ConfigError as error:
        return _tell(error, 2, debug)
    except KeyboardInterrupt as stop:
        return _tell(stop, 130, debug)
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has gone; Python would complain once more while closing.
        sys.stdout = None
        return 0
    except Exception as error:
        return _tell(error, 1, debug)


def _run(arguments: list[str]) -> int | None:
    verb, *rest = arguments or ["--help"]
    if verb in ("-h", "--help", "help"):
        print(HELP.format(verbs="\n".join(f"  {name:<8} {what}" for name, what in VERBS.items())))
        return 0
    if verb == "--version":
        print(__version__)
        return 0
    if verb not in VERBS:
        raise ConfigError(f"{verb}: no such verb{near(verb, VERBS) or '; there are: ' + ', '.join(VERBS)}")
    command = import_module(f"mmrnn.cli.{verb}")
    if "-h" in rest or "--help" in rest:
        print(command.__doc__.strip())
        return 0
    return command.main(*_take_dirs(rest))


def _take_dirs(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The arguments without `--config-dir DIR`, and the folders that these named."""
    rest, dirs = [], []
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name not in ("--config-dir", "-cd"):
            rest.append(word)
        elif folder := value if equals else next(words, ""):
            dirs.append(folder)
        else:
            raise ConfigError("--config-dir: name the folder of cards behind it")
    return rest, dirs


def _tell(error: BaseException, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    text = str(error) or ("stopped" if code == 130 else type(error).__name__)
    if code == 1:
        text = f"{type(error).__name__}: {text}" + ("" if debug else " (--debug shows where)")
    print(f"mmrnn: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
