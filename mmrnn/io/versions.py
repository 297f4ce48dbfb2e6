"""Versions that results depend on: of the libraries, and the commit of a checkout."""

import platform
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("mmrnn", "torch", "triton", "transformers", "timm", "open_clip_torch", "bitsandbytes")


def library_versions(*more: str) -> dict[str, str]:
    """Return the versions of Python, `LIBRARIES` and more packages; one that is not installed is left out."""
    versions = {"python": platform.python_version()}
    for name in (*LIBRARIES, *more):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def own_version() -> str:
    """Return the version of mmrnn, installed or run from a checkout."""
    # The package above all rooms is loaded before any of them; none imports it.
    return sys.modules["mmrnn"].__version__


def commit(root: Path = Path(__file__).parents[2]) -> str | None:
    """Return the commit of the checkout that mmrnn runs from, with `-dirty` behind it where files of it are changed.

    Args:
        root: folder that holds the package.

    Returns:
        None where it is no checkout, or there is no git.
    """
    if not (root / ".git").exists():
        return None
    command = ["git", "--no-optional-locks", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run([*command, "--exclude=*"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
