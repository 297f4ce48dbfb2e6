"""Configuration file of a checkpoint: YAML without aliases."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mmrnn.config.tree import plain, weight_sources
from mmrnn.config.yaml_file import read_yaml
from mmrnn.io import shards
from mmrnn.io.atomic import replace_file
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


class NoAliasDumper(yaml.SafeDumper):
    """Safe dumper that writes a repeated value again instead of an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never write an alias."""
        return True
