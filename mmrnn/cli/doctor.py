"""`mmrnn doctor`: what this machine has for mmrnn, and how to get what it has not."""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from typing import NamedTuple
from urllib.parse import urlsplit

from mmrnn.cli.options import Parser
from mmrnn.io.requirements import Unmet, unmet_requirements

DEVELOPMENT = ("test", "docs")
"""Extras that no user needs."""

HUB_TIMEOUT = 3.0
"""Seconds to wait for the hub."""


class Line(NamedTuple):
    """A finding: what it is about, in words what there is, and the cure where something is missing."""

    about: str
    found: str
    cure: str = ""


def parser() -> Parser:
    """Parser of `mmrnn doctor`."""
    return Parser(
        "doctor",
        "",
        """
Print versions, processor, devices, native code, Triton, the connection to the hub of weights, and the packages that are
missing or have a version that mmrnn does not take, each with the line that installs them. Native code is built, if it
is not there yet.
""",
        "  mmrnn doctor",
    )


def main(arguments: Sequence[str]) -> int:
    """Print a line for each finding.

    Returns:
        The exit code: 1 where mmrnn cannot run, for want of a package, or not fast, for want of native code.

    Raises:
        ConfigError: wrong usage.
    """
    parser().parse(arguments)
    code = 0
    for line in findings():
        print(f"{line.about:<12} {line.found}{f': {line.cure}' if line.cure else ''}", flush=True)
        code = max(code, int(line.about in ("package", "native code") and bool(line.cure)))
    return code


def findings() -> Iterator[Line]:
    """Yield all findings; those that torch is asked for only where there is one."""
    yield from versions()
    yield from packages()
    if find_spec("torch"):
        yield from devices()
        yield from native_code()
        yield triton()
    yield hub()
    yield from extras()


def versions() -> Iterator[Line]:
    """Yield the versions of mmrnn and of the libraries that results depend on."""
    from mmrnn.io.versions import commit, library_versions, own_version

    checkout = commit()
    yield Line("mmrnn", own_version() + (f", commit {checkout}" if checkout else ""))
    found = {name: version for name, version in library_versions("torchvision").items() if name != "mmrnn"}
    yield Line("versions", ", ".join(f"{name} {version}" for name, version in found.items()))


def devices() -> Iterator[Line]:
    """Yield processor and GPUs, with the precision that `precision=auto` takes on each."""
    import torch

    from mmrnn.config.device import UNTESTED, device_count, device_module, lacking
    from mmrnn.io.processor import processor_name
    from mmrnn.training.precision import resolve

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    vectors = torch.backends.cpu.get_cpu_capability()
    yield Line("processor", f"{processor_name()}, {cores} cores, {vectors}, precision {resolve('auto', 'cpu')}")
    for number in range(device_count("cuda")):
        device = device_module("cuda").get_device_properties(number)
        yield Line("GPU", f"{device.name}, {device.total_memory / 2**30:.0f} GiB, precision {resolve('auto', 'cuda')}")
    here = {kind: count for kind in UNTESTED if (count := device_count(kind))}
    for kind, count in here.items():
        yield Line(kind, f"{count} found, untested, taken by device={kind} alone; lacks {', '.join(lacking(kind))}")
    if not here and not device_count("cuda"):
        yield Line("GPU", "none that torch can use, everything runs on the processor")
    yield Line("untested", f"device={'|'.join(UNTESTED)}: no test of mmrnn has run on one")


def native_code() -> Iterator[Line]:
    """Yield the state of the C++ code for the processor; building it takes half a minute, once."""
    from mmrnn_kernels.common.native.build import unavailable_reason
    from mmrnn_kernels.wkv6.cpu import SOURCE

    reason = unavailable_reason(SOURCE)
    if reason is None:
        yield Line("native code", "built for this processor")
    else:
        yield Line("native code", "missing, recurrent backbones run several times slower in PyTorch", reason)


def triton() -> Line:
    """Return the state of Triton, whose kernels run on GPUs."""
    from mmrnn_kernels.common.triton.availability import missing_reason

    reason = missing_reason()
    return Line("triton", "missing, GPUs would run PyTorch code", reason) if reason else Line("triton", "installed")


def hub() -> Line:
    """Return whether the hub of weights answers; weights on this disk need none."""
    address = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return Line("hub", "not asked", "HF_HUB_OFFLINE is set, weights come from this disk alone")
    parts = urlsplit(address)
    try:
        port = parts.port or (80 if parts.scheme == "http" else 443)
        socket.create_connection((parts.hostname or "", port), HUB_TIMEOUT).close()
    except (OSError, ValueError) as error:
        return Line("hub", f"{address} does not answer ({error})", "name weights by a path on this disk")
    return Line("hub", f"{address} answers")


def packages() -> Iterator[Line]:
    """Yield the packages that mmrnn needs, and that are missing or have a version outside the range it asks for."""
    # Releases of torchvision fit one release of torch, and fail to import beside another.
    for asking in ("mmrnn", "torchvision"):
        with suppress(PackageNotFoundError):
            for unmet in unmet_requirements(asking):
                if not unmet.extra:
                    yield _line("package", asking, unmet)


def extras() -> Iterator[Line]:
    """Yield the extras of which packages are missing, or have a version outside the range that mmrnn asks for."""
    try:
        unmet = [one for one in unmet_requirements("mmrnn") if one.extra and one.extra not in DEVELOPMENT]
    except PackageNotFoundError:
        yield Line("extras", "not known, mmrnn runs from a folder that is not installed", "pip install -e .")
        return
    missing: dict[str, list[str]] = {}
    for one in unmet:
        if one.installed is None:
            missing.setdefault(one.extra, []).append(one.package)
        else:
            yield _line("extra", one.extra, one)
    for extra, names in sorted(missing.items()):
        yield Line("extra", f"{extra} lacks {', '.join(names)}", f"pip install 'mmrnn[{extra}]'")
    if not unmet:
        yield Line("extras", "all are installed")


def _line(about: str, asking: str, unmet: Unmet) -> Line:
    found = f"{unmet.package} {unmet.installed}" if unmet.installed else f"no {unmet.package}"
    return Line(about, f"{asking} needs {unmet.wanted}, there is {found}", f"pip install '{unmet.wanted}'")
