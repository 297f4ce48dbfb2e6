"""Configuration trees (plain dicts, lists and values) and the one walker over them.

Composition, validation, building and reports go through a tree by `walk`, `leaves`, `cards`, `modalities` and
`weight_sources`; nothing else recurses into one.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mmrnn.config.error import ConfigError

Tree = Mapping[str, Any]


def plain(cfg: Any) -> Any:
    """Return a configuration as plain dicts and lists with its references resolved; plain values are returned as is.

    Raises:
        ConfigError: a reference `${...}` cannot be resolved.
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
    """Yield every node with its dotted path, a mapping or list before its items.

    Args:
        path: of `value` itself.
        lists: descend into lists; False treats them as values.
    """
    yield path, value
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif lists and isinstance(value, list | tuple):
        items = enumerate(value)
    for name, item in items:
        yield from walk(item, f"{path}.{name}" if path else str(name), lists=lists)


def leaves(tree: Tree) -> Iterator[tuple[str, Any]]:
    """Yield every value that is no mapping, with its path."""
    return ((path, value) for path, value in walk(tree, lists=False) if not isinstance(value, Mapping))


def get_node(tree: Tree, path: str, default: Any = None) -> Any:
    """Return the node at a dotted path, or `default`."""
    node: Any = tree
    for name in path.split("."):
        if not isinstance(node, Mapping) or name not in node:
            return default
        node = node[name]
    return node


def is_card(value: Any) -> bool:
    """Return True for a mapping that names a class by `_target_`."""
    return isinstance(value, Mapping) and "_target_" in value


def cards(tree: Any, path: str = "") -> Iterator[tuple[str, Tree]]:
    """Yield every card in a tree with its path, an outer one before those inside it."""
    return ((place, node) for place, node in walk(tree, path) if is_card(node))


def modalities(tree: Tree) -> list[tuple[str, str, Tree]]:
    """Return name, path prefix and parts of every modality; the image modality is at the root."""
    others = tree.get("modalities") or {}
    return [("image", "", tree), *((name, f"modalities.{name}.", modality) for name, modality in others.items())]


def weight_sources(weights: Tree | None) -> list[tuple[str, Any]]:
    """Return the files named under `weights`, each with the path of the part that it is for."""
    return list(leaves(weights or {}))
