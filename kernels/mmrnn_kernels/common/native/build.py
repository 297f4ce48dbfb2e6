"""Build of C++ sources with the compiler of this machine on first use, kept in a cache folder of this user."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

from .cache import UnsafeFolderError, cache_folder, require_safe, unsafe_reason

COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fPIC", "-shared")
OPTIONAL_FLAGS = (("-march=native", "-fopenmp"), ("-march=native",), ("-mcpu=native",), ())
"""Flags that not every compiler takes, best first. Without OpenMP everything runs in one thread."""


class BuildError(Exception):
    """Reason why there is no native code, in one sentence."""


def load_library(source: Path) -> ctypes.CDLL:
    """Load the compiled source from the cache folder, or build it.

    Raises:
        BuildError: there is no compiler, or none that builds the source.
    """
    library = load_or_reason(source)
    if isinstance(library, str):
        raise BuildError(library)
    return library


def unavailable_reason(source: Path) -> str | None:
    """Return why `load_library(source)` would fail, or None. The first call builds."""
    library = load_or_reason(source)
    return library if isinstance(library, str) else None


# The mark of `torch.compiler.assume_constant_result`, which would import the compiler of torch here: a traced model
# calls once and keeps the result.
unavailable_reason._dynamo_marked_constant = True


@cache
def native_function(source: Path, name: str, *argtypes: type) -> Callable[..., int]:
    """Load a C function of a source."""
    function = getattr(load_library(source), name)
    function.argtypes = argtypes
    return function


@cache
def load_or_reason(source: Path) -> ctypes.CDLL | str:
    """Load or build the source; return the reason in words if that is impossible."""
    compilers = [path for path in map(shutil.which, COMPILERS) if path]
    if not compilers:
        return f"no C++ compiler was found ({', '.join(COMPILERS)}), install one of them"
    reason = ""
    for compiler in dict.fromkeys(compilers):
        for extra in OPTIONAL_FLAGS:
            try:
                return load_or_compile(source, [compiler, *FLAGS, *extra])
            except (OSError, UnsafeFolderError, subprocess.SubprocessError) as error:
                reason = reason or f"{compiler} could not build {source.name}: {first_error_line(error)}"
    return reason


def load_or_compile(source: Path, command: list[str]) -> ctypes.CDLL:
    """Load from the cache folder or compile into it; where none can be used, into a temporary folder.

    Warns if the cache folder is not safe: then every process builds.
    """
    key = cache_key(source, command)
    try:
        folder = cache_folder()
        return load_cached(folder, key) or compile_library(source, command, folder, key)
    except UnsafeFolderError as error:
        warnings.warn(f"native code is built in each process and not kept: {error}", RuntimeWarning, stacklevel=2)
    except (OSError, RuntimeError):
        pass  # read-only or without a home: nothing to mend
    with tempfile.TemporaryDirectory(prefix="mmrnn-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary).resolve(strict=True)
        require_safe(folder)
        return compile_library(source, command, folder, key)


def cache_key(source: Path, command: list[str]) -> str:
    """Hash the preprocessed source with all macros (compiler version, processor features), and the flags."""
    preprocessed = run([*command, "-E", "-dD", "-P", "-x", "c++", str(source)])
    parts = ("\0".join(command).encode(), preprocessed)
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:24]


def load_cached(folder: Path, key: str) -> ctypes.CDLL | None:
    """Load the library of this key that only this user can write.

    Its name has the hash of its content, since half a library would end the process.
    """
    for path in folder.glob(f"{key}-*.so"):
        if path.is_file() and unsafe_reason(path) is None and path.name == library_name(key, path):
            try:
                return ctypes.CDLL(str(path))
            except OSError:
                continue
    return None


def compile_library(source: Path, command: list[str], folder: Path, key: str) -> ctypes.CDLL:
    """Compile to a temporary file in the folder and rename it, so that no other process loads half a file."""
    handle, name = tempfile.mkstemp(dir=folder, suffix=".tmp")
    os.close(handle)
    output = Path(name)
    try:
        run([*command, "-x", "c++", str(source), "-o", str(output)])
        output.chmod(0o700)  # the linker made it anew with the modes of the umask
        path = folder / library_name(key, output)
        os.replace(output, path)
    finally:
        output.unlink(missing_ok=True)
    return ctypes.CDLL(str(path))


def library_name(key: str, path: Path) -> str:
    """Return the file name for a library: its key and the hash of its content."""
    return f"{key}-{hashlib.sha256(path.read_bytes()).hexdigest()[:24]}.so"


def run(command: list[str]) -> bytes:
    """Run a command and return its output.

    Raises:
        CalledProcessError: it failed.
        TimeoutExpired: it took more than two minutes.
    """
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=120).stdout


def first_error_line(error: Exception) -> str:
    """Return the first line of a compiler's messages that has the word "error"."""
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line.strip() for line in error.stderr.decode(errors="replace").splitlines() if line.strip()]
        return next((line for line in lines if "error" in line), lines[0] if lines else f"exit code {error.returncode}")
    return str(error)
