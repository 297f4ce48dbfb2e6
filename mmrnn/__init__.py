"""Vision-language models with linear-RNN backbones: their parts, and how the parts are put together."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmrnn.checkpoint import load
    from mmrnn.config import ConfigError, build, check, compose, conf_dir
    from mmrnn.vlm import VLM

__version__ = "0.1.0"
__all__ = ["VLM", "ConfigError", "build", "check", "compose", "conf_dir", "load"]

_HOMES = {"VLM": "mmrnn.vlm", "load": "mmrnn.checkpoint"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mmrnn' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(_HOMES.get(name, "mmrnn.config")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
