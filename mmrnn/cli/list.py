"""mmrnn list [GROUP]

The groups of cards and the options of each, or the options of one group with what their cards say they are.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mmrnn.config.coerce import near
from mmrnn.config.compose import conf_dir
from mmrnn.config.error import ConfigError


def main(arguments: Sequence[str], dirs: Sequence[str] = ()) -> None:
    cards = options(dirs)
    if not arguments:
        for group, names in cards.items():
            print(f"{group:<12} {', '.join(names)}")
        return
    for group in arguments:
        if group not in cards:
            raise ConfigError(f"{group}: no such group{near(group, cards) or '; there are: ' + ', '.join(cards)}")
        width = max(map(len, cards[group]))
        for name, about in cards[group].items():
            print(f"{name:<{width}}  {about}".rstrip())


def options(dirs: Sequence[str | Path] = ()) -> dict[str, dict[str, str]]:
    """Group -> option -> what its card says in its first line of comment."""
    groups: dict[str, dict[str, str]] = {}
    for root in (conf_dir(), *map(Path, dirs)):
        for folder in sorted(path for path in root.iterdir() if path.is_dir() and path.name != "hydra"):
            cards = {path.stem: about(path) for path in sorted(folder.glob("*.yaml"))}
            groups[folder.name] = cards | groups.get(folder.name, {})
    return {group: cards for group, cards in groups.items() if cards}


def about(card: Path) -> str:
    """The first line of comment of a card."""
    return next(_comments(card), "")


def _comments(card: Path) -> Iterator[str]:
    for line in card.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            return
        text = line.lstrip("# ").strip()
        if text and not text.startswith("@package"):
            yield text
