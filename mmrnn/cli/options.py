"""Argument parsing that the verbs share: the parser class, value types, and options of several verbs."""

import argparse
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

from mmrnn.config.coerce import did_you_mean
from mmrnn.config.error import ConfigError


class Interrupted(KeyboardInterrupt):
    """Signal that has stopped a command.

    Attributes:
        code: exit code of the process.
    """

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[str, int]]:
        """Both arguments, by which a launcher passes it on between processes."""
        return Interrupted, (str(self), self.code)


class Help(argparse.RawDescriptionHelpFormatter):
    """Help page that keeps line breaks and adds the default to each option that does not name it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.default is argparse.SUPPRESS or not action.option_strings or "default" in text:
            return text
        shown = "none" if action.default is None else "off" if action.default is False else "%(default)s"
        return f"{text} (default: {shown})"


class Parser(argparse.ArgumentParser):
    """Parser of one verb: it raises ConfigError where argparse would exit.

    Options and words may be mixed. Every verb takes `--config-dir` (in `dirs`), `--debug` and `--help`.
    """

    def __init__(self, verb: str, arguments: str, description: str, examples: str) -> None:
        super().__init__(
            prog=f"mmrnn {verb}".strip(),
            usage=" ".join(("mmrnn", *filter(None, (verb, arguments)))),
            description=description.strip("\n"),
            epilog="examples:\n" + examples.strip("\n"),
            formatter_class=Help,
            add_help=False,
            allow_abbrev=False,
            exit_on_error=False,
        )
        self.verb = verb
        shared = self.add_argument_group("options of every verb")
        shared.add_argument(
            *("-cd", "--config-dir"),
            type=to_path,
            action="append",
            default=[],
            dest="dirs",
            metavar="DIR",
            help="further folder of cards, laid out like conf/; may be repeated (default: none)",
        )
        shared.add_argument("--debug", action="store_true", help="show the traceback of a failure")
        shared.add_argument("-h", "--help", action="help", default=argparse.SUPPRESS, help="show this page")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse the words behind the verb.

        Raises:
            ConfigError: an unknown option, a missing value, or one of the wrong form.
        """
        try:
            options, unknown = self.parse_known_intermixed_args(arguments)
        except argparse.ArgumentError as fault:
            self._refuse(fault.argument_name or "", fault.message)
        for word in unknown:
            option = word.partition("=")[0]
            if not option.startswith("-"):
                raise ConfigError(f"{word}: one word too many; the usage is `{self.usage}`")
            known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
            near = did_you_mean(option, known) or f"; it has {', '.join(known)}"
            raise ConfigError(f"{option}: {self.verb} has no such option{near}")
        return options

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print before it exits.

        Raises:
            ConfigError: always.
        """
        self._refuse("", message)

    def _refuse(self, option: str, message: str) -> NoReturn:
        message = message.replace("expected one argument", "expected a value behind it")
        message = message.replace("the following arguments are required:", "missing")
        name = option.rpartition("/")[2] or self.verb
        raise ConfigError(f"{name}: {message} (see `{self.prog} --help`)")


class Forward(argparse.Action):
    """Collects options of another program in `dest`, as they were written."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Append the option and its value."""
        words = values if isinstance(values, list) else [values] if values else []
        setattr(namespace, self.dest, [*vars(namespace)[self.dest], option, *words])


def to_path(word: str) -> Path:
    """A path; an empty word is none.

    Raises:
        ArgumentTypeError: it is empty.
    """
    if not word:
        raise argparse.ArgumentTypeError("expected a path, got ''")
    return Path(word)


def natural(word: str) -> int:
    """A whole number from 1 on, in ASCII digits.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not re.fullmatch("[0-9]{1,9}", word) or not int(word):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {word!r}")
    return int(word)


def one_of(choices: Collection[str]) -> Callable[[str], str]:
    """Type of a word that is one of `choices`."""

    def check(word: str) -> str:
        if word not in choices:
            known = ", ".join(choices)
            raise argparse.ArgumentTypeError(f"expected one of {known}; got {word!r}{did_you_mean(word, choices)}")
        return word

    return check


def add_overrides(parser: Parser) -> None:
    """Overrides of the configuration, as Hydra writes them."""
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="OVERRIDE",
        help="GROUP=OPTION takes a card, GROUP.KNOB=VALUE sets a knob; +KEY=VALUE adds a key, ~KEY removes one",
    )


def split_trusted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words without `trusted=[PACKAGE,...]`, and the packages that it names.

    Raises:
        ConfigError: what stands behind `trusted=` is no list of packages.
    """
    others = [word for word in words if not word.startswith("trusted=")]
    trusted: list[str] = []
    for word in (word for word in words if word.startswith("trusted=")):
        names = [name.strip() for name in word.removeprefix("trusted=").strip("[]").split(",")]
        if not all(name.isidentifier() for name in names if name):
            raise ConfigError(
                f"{word}: name packages beside mmrnn whose classes a card may name: trusted=[mine,theirs]"
            )
        trusted += filter(None, names)
    return others, trusted


def add_run(parser: Parser) -> None:
    """Folder of the trained model."""
    parser.add_argument(
        "--run", type=to_path, metavar="DIR", help="folder of a run (default: the newest finished run in runs/)"
    )


def add_max_new_tokens(parser: Parser, default: int = 64) -> None:
    """Length limit of a reply."""
    parser.add_argument(
        "--max-new-tokens", type=natural, default=default, metavar="N", help="largest number of tokens of a reply"
    )
