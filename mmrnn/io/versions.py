"""Versions of the libraries that results depend on."""

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = ("mmrnn", "torch", "triton", "transformers", "timm", "open_clip_torch", "bitsandbytes")


def library_versions(*more: str) -> dict[str, str]:
    """Return the versions of Python, `LIBRARIES` and more packages; one that is not installed is left out."""
    versions = {"python": platform.python_version()}
    for name in (*LIBRARIES, *more):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
