"""Devices by name: the choice of one, and what each kind lacks. The only place that asks torch for accelerators."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from mmrnn.config.error import ConfigError
from mmrnn.io.processor import processor_name
from mmrnn_kernels.common.cpu_features import multiplies_bf16 as cpu_multiplies_bf16


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Properties of a kind of device.

    Attributes:
        package: module whose import brings the kind to torch, and the package of pip that has it; None: torch's own.
        fp64: it computes in fp64; Apple's GPUs do not.
        pinned_memory: batches are copied to it from page-locked memory.
        memory_figures: torch says how much memory it has, and the peak of what tensors took.
        distributed: several processes can share a run, each with a device of its own.
    """

    package: tuple[str, str] | None = None
    fp64: bool = True
    pinned_memory: bool = True
    memory_figures: bool = True
    distributed: bool = True


KINDS = {
    "cpu": Kind(pinned_memory=False, memory_figures=False),
    "cuda": Kind(),
    "xpu": Kind(),
    "npu": Kind(package=("torch_npu", "torch-npu")),
    "mps": Kind(fp64=False, pinned_memory=False, memory_figures=False, distributed=False),
}
"""Kinds of device that `device` can name; of the accelerators the first that is here is the one of the machine."""

UNTESTED = ("xpu", "npu", "mps")
"""Kinds on which no test of mmrnn has run; they are taken by name alone."""


def choose_device(name: str | None) -> torch.device:
    """Return the device of a name.

    Args:
        name: `cpu`, `cuda`, `cuda:1`, `mps`, `npu`, `xpu`; None: a CUDA GPU where there is one, else the CPU.

    Raises:
        ConfigError: no such kind, or torch finds no such device here; with the way out.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not is_device_name(name):
        raise ConfigError(f"device={name}: must be one of {', '.join(KINDS)}, with a number as in cuda:1")
    kind, _, index = name.partition(":")
    if kind != "cpu" and int(index or 0) >= (count := device_count(kind, name)):
        raise ConfigError(
            f"device={name}: torch finds {count} {kind.upper()} devices here; set device=cpu, or see that driver and "
            "torch fit"
        )
    return torch.device(name)


def is_device_name(text: str) -> bool:
    """Return True for a kind of device, alone or with a number."""
    kind, colon, index = text.partition(":")
    return kind in KINDS and (not colon or index.isdecimal())


def device_count(kind: str, name: str | None = None) -> int:
    """Return the number of devices of a kind.

    Args:
        kind: key of `KINDS`, without `cpu`.
        name: as the user wrote it; None: nobody did, and a package that is not installed means none.

    Raises:
        ConfigError: the user names a kind whose package is not installed.
    """
    if package := KINDS[kind].package:
        module, pip = package
        try:
            import_module(module)
        except ImportError as error:
            if name is None:
                return 0
            raise ConfigError(
                f"device={name}: `import {module}` fails ({error}), which brings it to torch: pip install {pip}"
            ) from error
    return torch.get_device_module(kind).device_count()


def accelerator() -> str | None:
    """Return the kind of accelerator that this machine has, or None."""
    return next((kind for kind in KINDS if kind != "cpu" and device_count(kind)), None)


def device_module(device: torch.device | str) -> Any:
    """Return torch's module of a device, such as `torch.cuda`."""
    return torch.get_device_module(device)


def device_name(device: torch.device) -> str:
    """Return the name of the accelerator, where its kind tells one, else of the processor."""
    if not KINDS[device.type].memory_figures:
        return processor_name()
    return device_module(device).get_device_name(device)


def multiplies_bf16(device: torch.device | str) -> bool:
    """Return whether a device multiplies bf16 natively."""
    kind = torch.device(device).type
    if kind == "cpu":
        return cpu_multiplies_bf16()
    if kind == "mps":
        return torch.backends.mps.is_macos_or_newer(14, 0)
    return kind == "cuda" or device_module(kind).is_bf16_supported()


def fp64_device(device: torch.device) -> torch.device:
    """Return the device itself where it computes in fp64, else the CPU."""
    return device if KINDS[device.type].fp64 else torch.device("cpu")


def lacking(kind: str) -> list[str]:
    """Return what a kind of accelerator that is here lacks, in words, each with what is done in its place."""
    traits = KINDS[kind]
    found = {
        "fp64 (tokens are drawn on the CPU)": not traits.fp64,
        "pinned memory (batches are copied from ordinary memory)": not traits.pinned_memory,
        "figures of memory (the log has none)": not traits.memory_figures,
        "runs of several processes": not traits.distributed,
        "Triton kernels (operators run in PyTorch: backend=chunked)": kind != "cuda",
        "bf16 (precision=auto is fp32)": not multiplies_bf16(kind),
    }
    return [words for words, lacks in found.items() if lacks]
