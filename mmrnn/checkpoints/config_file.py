"""Configuration file of a checkpoint: YAML without references."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mmrnn.config.error import ConfigError
from mmrnn.config.tree import plain, weight_sources
from mmrnn.io.atomic import replace_file
from mmrnn.io.tensor_files import LARGEST_TEXT
from mmrnn.model.parameter_names import matches

CONFIG = "config.yaml"


def save_config(folder: str | Path, cfg: Mapping[str, Any]) -> None:
    replace_file(Path(folder) / CONFIG, lambda path: path.write_text(to_yaml(plain(cfg)), encoding="utf-8"))


def read_config(folder: str | Path) -> dict[str, Any] | None:
    """The configuration in a folder, or None where there is none.

    Raises:
        ConfigError: the file is no configuration.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > LARGEST_TEXT:
            raise ConfigError(f"{path} is no configuration: it has {path.stat().st_size} bytes")
        cfg = yaml.load(path.read_text(encoding="utf-8"), NoAliasLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as fault:
        raise ConfigError(f"{path} is no configuration: {str(fault).splitlines()[0]}") from fault
    if not isinstance(cfg, dict):
        raise ConfigError(f"{path} is no configuration")
    return cfg


class NoAliasLoader(yaml.SafeLoader):
    """YAML without references: a few lines of them unfold into more than any memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds references (*name), which no configuration of ours has")
        return super().compose_node(parent, index)


class NoAliasDumper(yaml.SafeDumper):
    """YAML without references."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class MissingBaseError(ValueError):
    """Nothing says where some tensors come from."""


def check_base(cfg: Mapping[str, Any], names: Sequence[str]) -> None:
    """
    Raises:
        MissingBaseError: a configuration does not say where tensors come from that a checkpoint does not hold.
    """
    bases = {path for path, source in weight_sources(cfg.get("weights")) if source is not None}
    for part in ("encoder", "connector", "backbone"):
        if (cfg.get(part) or {}).get("pretrained"):
            bases.add(part)
    lost = [name for name in names if not ("model" in bases or matches(name, tuple(bases)))]
    if lost:
        raise MissingBaseError(
            f"{lost[0]} (one of {len(lost)}) is not in the checkpoint, and its configuration names no base for it: "
            "set weights.model, or weights of that part"
        )


def to_yaml(cfg: Mapping[str, Any]) -> str:
    return yaml.dump(cfg, Dumper=NoAliasDumper, sort_keys=False, allow_unicode=True)
