"""Configuration trees: plain dicts, lists and values, and the one walker over them."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmrnn.config.error import ConfigError

Tree = Mapping[str, Any]


def plain(cfg: Any) -> Any:
    """A configuration as plain dicts and lists, references resolved; a plain one stays as it is.

    Raises:
        ConfigError: a reference `${...}` leads nowhere.
    """
    if cfg is None or isinstance(cfg, dict | list | tuple | str | int | float):
        return cfg
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from error


def walk(value: Any, path: str = "", *, lists: bool = True) -> Iterator[tuple[str, Any]]:
    """Every node with its path, a mapping or list before what is inside it.

    Args:
        lists: go into lists; False treats them as values.
    """
    yield path, value
    inside: Any = ()
    if isinstance(value, Mapping):
        inside = value.items()
    elif lists and isinstance(value, list | tuple):
        inside = enumerate(value)
    for name, item in inside:
        yield from walk(item, f"{path}.{name}" if path else str(name), lists=lists)


def leaves(tree: Tree) -> Iterator[tuple[str, Any]]:
    """Every value that is no mapping, with its path."""
    return ((path, value) for path, value in walk(tree, lists=False) if not isinstance(value, Mapping))


def at(tree: Tree, path: str, default: Any = None) -> Any:
    """The node at a path, or `default`."""
    node: Any = tree
    for name in path.split("."):
        if not isinstance(node, Mapping) or name not in node:
            return default
        node = node[name]
    return node


def is_card(value: Any) -> bool:
    """True for a mapping that names a class."""
    return isinstance(value, Mapping) and "_target_" in value


def cards(tree: Any, path: str = "") -> Iterator[tuple[str, Tree]]:
    """Every card in a tree with its path, an outer one before those inside it."""
    return ((place, node) for place, node in walk(tree, path) if is_card(node))


def modalities(tree: Tree) -> list[tuple[str, str, Tree]]:
    """Name, path and parts of every modality; those of the image modality stand at the root."""
    more = tree.get("modalities") or {}
    return [("image", "", tree), *((name, f"modalities.{name}.", modality) for name, modality in more.items())]


def sources(weights: Tree) -> list[tuple[str, Any]]:
    """The files named under `weights`, with the path of the part that each is for."""
    return list(leaves(weights))
