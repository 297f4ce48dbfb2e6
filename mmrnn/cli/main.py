"""The command line: `mmrnn VERB`.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 130 stopped by Ctrl-C, 143 a training run that another
signal has stopped; it has saved a checkpoint.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from mmrnn import __version__
from mmrnn.cli.options import Interrupted, Parser
from mmrnn.config.coerce import did_you_mean
from mmrnn.config.error import ConfigError

VERBS = {
    "list": "print the groups of cards, or the options of one",
    "show": "print parts, parameters, tokens and state of a model; nothing is loaded",
    "plan": "estimate time and memory of a training run on GPUs; nothing is loaded",
    "data": "filter records, select them by features of their images, or caption images",
    "train": "train a model, or with -m a sweep of models",
    "sweep": "print how far a sweep is, or continue it",
    "ask": "answer a question, about images or without them, with a trained model",
    "chat": "talk with a trained model, turn after turn",
    "serve": "answer requests of OpenAI's chat API with a trained model",
    "search": "find images of a folder by a text or an image, with a trained model",
    "eval": "put benchmarks to trained models",
    "report": "compare finished runs in a table and a chart",
    "bench": "time this library against other installed libraries",
    "doctor": "print versions, devices and what is missing on this machine, with the line that installs it",
    "convert": "convert published weights to a folder with a card, or back",
}


def parser() -> Parser:
    """Parser of `mmrnn` itself; the verbs have their own."""
    verbs = "\n".join(f"  {name:<8} {what}" for name, what in VERBS.items())
    made = Parser(
        "",
        "VERB [ARGUMENT ...] [OPTION ...]",
        f"""
{verbs}

A model is chosen by overrides: GROUP=OPTION takes a card, GROUP.KNOB=VALUE sets one of its knobs.
`mmrnn VERB --help` describes a verb.
""",
        """
  mmrnn list connector
  mmrnn show model=visualrwkv6_7b connector=qformer
  mmrnn train model=visualrwkv6_small scan=multidirectional seed=1
  mmrnn train -m connector=linear,mlp,qformer seed=1,2,3
""",
    )
    made.add_argument("--version", action="version", version=__version__, help="print the version of mmrnn")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; a user's mistake is one sentence on stderr.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return _run(arguments) or 0
    except ConfigError as error:
        return _report(error, 2, debug)
    except Interrupted as stop:
        return _report(stop, stop.code, debug) if str(stop) else stop.code
    except KeyboardInterrupt as stop:
        return _report(stop, 130, debug)
    except BrokenPipeError:
        # The reading end of a pipe (`| head`) is closed; Python would report that again at exit.
        sys.stdout = None
        return 0
    except Exception as error:
        return _report(error, 1, debug)


def run() -> NoReturn:
    """Run one verb and end the process.

    A process that fails beside others ends at once: the libraries of their group would abort it at exit, and its exit
    code would be lost.
    """
    code = main()
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _run(arguments: list[str]) -> int | None:
    verb, *rest = arguments or ["--help"]
    if verb in ("-h", "--help", "help"):
        print(parser().format_help().strip())
        return 0
    if verb == "--version":
        print(__version__)
        return 0
    if verb not in VERBS:
        raise ConfigError(f"{verb}: no such verb{did_you_mean(verb, VERBS) or '; there are: ' + ', '.join(VERBS)}")
    command = import_module(f"mmrnn.cli.{verb}")
    if "-h" in rest or "--help" in rest:
        print(command.parser().format_help().strip())
        return 0
    return command.main(rest)


def _report(error: BaseException, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    text = str(error) or ("stopped" if code == 130 else type(error).__name__)
    if code == 1:
        text = f"{type(error).__name__}: {text}" + ("" if debug else " (--debug shows where)")
    print(f"mmrnn: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    run()
