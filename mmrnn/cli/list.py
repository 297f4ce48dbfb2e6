"""`mmrnn list`: the groups of cards and their options."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mmrnn.cli.options import Parser
from mmrnn.config.coerce import did_you_mean
from mmrnn.config.compose import conf_dir
from mmrnn.config.error import ConfigError


def parser() -> Parser:
    """Parser of `mmrnn list`."""
    made = Parser(
        "list",
        "[GROUP ...] [OPTION ...]",
        "Print the groups of cards and their options, or the options of some groups with their descriptions.",
        "  mmrnn list\n  mmrnn list connector scan",
    )
    made.add_argument(
        "groups", nargs="*", default=[], metavar="GROUP", help="encoder, connector, backbone, ... (default: all)"
    )
    return made


def main(arguments: Sequence[str]) -> None:
    """Print the groups, or the options of some.

    Raises:
        ConfigError: wrong usage, or no such group.
    """
    chosen = parser().parse(arguments)
    cards = options(chosen.dirs)
    if not chosen.groups:
        for group, names in cards.items():
            print(f"{group:<12} {', '.join(names)}")
        return
    for group in chosen.groups:
        if group not in cards:
            near = did_you_mean(group, cards) or f"; there are: {', '.join(cards)}"
            raise ConfigError(f"{group}: no such group{near}")
        width = max(map(len, cards[group]))
        for name, about in cards[group].items():
            print(f"{name:<{width}}  {about}".rstrip())


def options(dirs: Sequence[str | Path] = ()) -> dict[str, dict[str, str]]:
    """Group -> option -> first comment line of its card."""
    groups: dict[str, dict[str, str]] = {}
    for root in (conf_dir(), *map(Path, dirs)):
        for folder in sorted(path for path in root.iterdir() if path.is_dir() and path.name != "hydra"):
            cards = {path.stem: about(path) for path in sorted(folder.glob("*.yaml"))}
            groups[folder.name] = cards | groups.get(folder.name, {})
    return {group: cards for group, cards in groups.items() if cards}


def about(card: Path) -> str:
    """First comment line of a card."""
    return next(_comments(card), "")


def _comments(card: Path) -> Iterator[str]:
    for line in card.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            return
        text = line.lstrip("# ").strip()
        if text and not text.startswith("@package"):
            yield text
