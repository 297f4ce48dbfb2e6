"""Vision-language models with linear-RNN backbones: parts, and functions that build, load and save models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmrnn.checkpoints.hub import from_pretrained, push_to_hub
    from mmrnn.checkpoints.save import save
    from mmrnn.config.compose import compose, conf_dir
    from mmrnn.config.error import ConfigError
    from mmrnn.config.validate import check
    from mmrnn.inference.load import load
    from mmrnn.model.build import build
    from mmrnn.model.vlm import VLM

__version__ = "0.1.0"
__all__ = [
    "VLM",
    "ConfigError",
    "build",
    "check",
    "compose",
    "conf_dir",
    "from_pretrained",
    "load",
    "push_to_hub",
    "save",
]

_MODULES = {
    "VLM": "model.vlm",
    "ConfigError": "config.error",
    "build": "model.build",
    "check": "config.validate",
    "compose": "config.compose",
    "conf_dir": "config.compose",
    "from_pretrained": "checkpoints.hub",
    "load": "inference.load",
    "push_to_hub": "checkpoints.hub",
    "save": "checkpoints.save",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'mmrnn' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(f"mmrnn.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
