"""Import of optional packages, with an error that names the extra to install."""

from importlib import import_module
from types import ModuleType


def require(module: str, package: str, *, wanted_by: str, extra: str) -> ModuleType:
    """Import `module`.

    Raises:
        ImportError: it is not installed; the message names the package and the extra of mmrnn that brings it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{wanted_by} needs {package} ({error}): pip install 'mmrnn[{extra}]'") from error
