"""Packages that only one data set needs: asked for when it is used, with the cure in the message."""

from importlib import import_module
from types import ModuleType


def require(module: str, package: str, *, wanted_by: str, extra: str) -> ModuleType:
    """Import `module`.

    Raises:
        ImportError: it is not installed; one sentence says which package is wanted and how to get it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{wanted_by} needs {package} ({error}): pip install 'mmrnn[{extra}]'") from error
