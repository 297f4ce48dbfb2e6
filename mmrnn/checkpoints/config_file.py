"""Configuration file of a checkpoint: YAML without aliases."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mmrnn.config.error import ConfigError
from mmrnn.config.tree import plain, weight_sources
from mmrnn.io import shards
from mmrnn.io.atomic import replace_file
from mmrnn.io.errors import first_line
from mmrnn.io.tensor_files import MAX_TEXT_SIZE
from mmrnn.model.parameter_names import matches
from mmrnn.weights.convert import EMBEDDER

CONFIG = "config.yaml"


class MissingBaseError(ValueError):
    """A checkpoint lacks tensors, and its configuration names no base that has them."""


def save_config(folder: str | Path, cfg: Mapping[str, Any]) -> None:
    """Write a configuration into a folder, atomically."""
    replace_file(Path(folder) / CONFIG, lambda path: path.write_text(to_yaml(plain(cfg)), encoding="utf-8"))


def read_config(folder: str | Path) -> dict[str, Any] | None:
    """Configuration in a folder; None: there is none.

    Raises:
        ConfigError: the file is not a configuration.
    """
    path = shards.text_file(Path(folder), CONFIG)
    return read_yaml(path) if path.is_file() else None


def read_yaml(path: Path) -> dict[str, Any]:
    """Parse a configuration or a card: plain YAML of bounded size, without aliases.

    Raises:
        ConfigError: the file is not a configuration.
    """
    try:
        if path.stat().st_size > MAX_TEXT_SIZE:
            raise ConfigError(f"{path} is no configuration: it has {path.stat().st_size} bytes; name another folder")
        cfg = yaml.load(path.read_text(encoding="utf-8"), NoAliasLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} is no configuration: {first_line(error)}; mend it, or name another folder"
        ) from error
    if not isinstance(cfg, dict):
        raise ConfigError(f"{path} is no configuration: it holds no names with values; mend it, or name another folder")
    return cfg


def to_yaml(cfg: Mapping[str, Any]) -> str:
    """YAML text of a plain configuration."""
    return yaml.dump(cfg, Dumper=NoAliasDumper, sort_keys=False, allow_unicode=True)


def check_base(cfg: Mapping[str, Any], names: Sequence[str]) -> None:
    """Check that a configuration names a base for tensors that a checkpoint lacks.

    Raises:
        MissingBaseError: it names none for some of them.
    """
    bases = {path for path, source in weight_sources(cfg.get("weights")) if source is not None}
    for part in ("encoder", "connector", "backbone"):
        if (cfg.get(part) or {}).get("pretrained"):
            bases.add(part)
    without_base = [name for name in names if name.startswith(EMBEDDER) or not _has_base(name, bases)]
    if without_base:
        raise MissingBaseError(
            f"{without_base[0]} (one of {len(without_base)}) is not in the checkpoint, and its configuration names no "
            "base for it: set weights.model, or weights of that part"
        )


def _has_base(name: str, bases: Collection[str]) -> bool:
    return "model" in bases or matches(name, tuple(bases))


class NoAliasLoader(yaml.SafeLoader):
    """Safe loader that refuses aliases: a few lines of nested ones expand to more than any memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose the next node.

        Raises:
            yaml.YAMLError: it is an alias.
        """
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds aliases (*name), which no configuration of mmrnn has")
        return super().compose_node(parent, index)


class NoAliasDumper(yaml.SafeDumper):
    """Safe dumper that writes a repeated value again instead of an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never write an alias."""
        return True
