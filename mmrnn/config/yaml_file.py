"""Files of plain YAML: configurations and cards."""

from pathlib import Path
from typing import Any

import yaml

from mmrnn.config.error import ConfigError
from mmrnn.io.errors import first_line
from mmrnn.io.tensor_files import MAX_TEXT_SIZE


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
