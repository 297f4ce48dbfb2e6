"""C++ that the compiler of this machine builds on first use, and that stays in a cache folder from then on."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fPIC", "-shared")
CHOICES = (("-march=native", "-fopenmp"), ("-march=native",), ("-mcpu=native",), ())
"""Flags that not every compiler takes, the best first. Without OpenMP everything runs in one thread."""


class Unavailable(Exception):
    """Why there is no native code, in one sentence."""


def library(source: Path) -> ctypes.CDLL:
    """The compiled source, from the cache folder or built now.

    Raises:
        Unavailable: there is no compiler, or none that gets it done.
    """
    found = built(source)
    if isinstance(found, str):
        raise Unavailable(found)
    return found


def obstacle(source: Path) -> str | None:
    """Why `library(source)` would fail, or None. Whichever is asked first builds."""
    found = built(source)
    return found if isinstance(found, str) else None


# What `torch.compiler.assume_constant_result` sets, which would import the whole compiler of torch here: a traced model
# asks once and keeps the answer.
obstacle._dynamo_marked_constant = True


@cache
def built(source: Path) -> ctypes.CDLL | str:
    compilers = [path for path in map(shutil.which, COMPILERS) if path]
    if not compilers:
        return f"no C++ compiler was found ({', '.join(COMPILERS)}), install one of them"
    reason = ""
    for compiler in dict.fromkeys(compilers):
        for extra in CHOICES:
            try:
                return obtain(source, [compiler, *FLAGS, *extra])
            except (OSError, subprocess.SubprocessError) as error:
                reason = reason or f"{compiler} could not build {source.name}: {told(error)}"
    return reason


def obtain(source: Path, command: list[str]) -> ctypes.CDLL:
    """Out of the cache folder, into it, or, where none can be used, out of one that exists only for now."""
    key = fingerprint(source, command)
    try:
        folder = cache_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cached(folder, key) or compiled(source, command, folder, key)
    except (OSError, RuntimeError):
        with tempfile.TemporaryDirectory(prefix="mmrnn-", ignore_cleanup_errors=True) as folder:
            return compiled(source, command, Path(folder), key)


def cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if os.path.isabs(root) else Path.home() / ".cache") / "mmrnn"


def fingerprint(source: Path, command: list[str]) -> str:
    """Of the source with all that it includes and all that the compiler defines (its version, what this processor can
    do), and of the flags.
    """
    whole = run([*command, "-E", "-dD", "-P", "-x", "c++", str(source)])
    parts = ("\0".join(command).encode(), whole)
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:24]


def cached(folder: Path, key: str) -> ctypes.CDLL | None:
    """A file tells in its name what is in it: loading half a library would end the process."""
    for path in folder.glob(f"{key}-*.so"):
        if path.name == named(key, path):
            try:
                return ctypes.CDLL(str(path))
            except OSError:
                continue
    return None


def compiled(source: Path, command: list[str], folder: Path, key: str) -> ctypes.CDLL:
    """Build beside the final place and move there, so that no other process sees half a file."""
    handle, name = tempfile.mkstemp(dir=folder, suffix=".tmp")
    os.close(handle)
    fresh = Path(name)
    try:
        run([*command, "-x", "c++", str(source), "-o", str(fresh)])
        path = folder / named(key, fresh)
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    return ctypes.CDLL(str(path))


def named(key: str, path: Path) -> str:
    return f"{key}-{hashlib.sha256(path.read_bytes()).hexdigest()[:24]}.so"


def run(command: list[str]) -> bytes:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=120).stdout


def told(error: Exception) -> str:
    """The first line in which a compiler speaks of an error."""
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line.strip() for line in error.stderr.decode(errors="replace").splitlines() if line.strip()]
        return next((line for line in lines if "error" in line), lines[0] if lines else f"exit code {error.returncode}")
    return str(error)
