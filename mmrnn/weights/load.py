"""Tensors of a file or a dictionary into a module: completely, or with a list of what does not fit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from mmrnn.weights.files import read
from mmrnn.weights.format import Format

WRAPPERS = ("module.", "_forward_module.", "_fsdp_wrapped_module.", "_orig_mod.", "base_model.model.")
"""Prefixes that training wrappers put before every name."""


class WeightsError(ValueError):
    """The tensors do not fit the module; the message lists them."""


@dataclass
class Report:
    """What a load did."""

    format: str
    loaded: int = 0
    ignored: dict[str, str] = field(default_factory=dict)  # their name -> why
    notes: list[str] = field(default_factory=list)  # what was changed on the way in


def load(
    module: nn.Module, source: str | Path | Mapping[str, Tensor], *, format: str | None = None, strict: bool = True
) -> Report:
    """Fill `module` from a file, a folder or a dictionary of tensors.

    Every name of the source is used or ignored for a stated reason, and (`strict`) every parameter of the module is
    set. Nothing is changed when the load fails.

    Args:
        source: `.safetensors`, `.pth`/`.pt`/`.bin`, a folder that holds one of these, or name -> tensor.
        format: name of the format; None recognises it by the names of the tensors.

    Raises:
        WeightsError: unknown or ambiguous format, missing, unexpected or mis-shaped tensors.
        FileNotFoundError: there is no such file.
    """
    tensors = dict(source) if isinstance(source, Mapping) else read(source)
    report = Report(format="")
    ready = convert(module, tensors, format=format, report=report)
    target = module.state_dict()
    missing = sorted(set(target) - set(ready)) if strict else []
    shapes = [
        f"{name}: {tuple(value.shape)}, the module has {tuple(target[name].shape)}"
        for name, value in ready.items()
        if value.shape != target[name].shape
    ]
    faults = {"missing": missing, "of another shape": shapes}
    if any(faults.values()):
        raise WeightsError(_complaint(module, report.format, faults))
    with torch.no_grad():
        for name, value in ready.items():
            target[name].copy_(value)
    report.loaded = len(ready)
    return report


def convert(
    module: nn.Module, tensors: Mapping[str, Tensor], *, format: str | None = None, report: Report | None = None
) -> dict[str, Tensor]:
    """The tensors under the names and in the shapes that `module` has for them.

    Works for gradients as well as for weights: whatever is changed is changed linearly.
    """
    report = Report(format="") if report is None else report
    module, inner = _sole_part(module)
    tensors = _unwrap(tensors)
    chosen = _choose(module, tensors, format)
    report.format = chosen.name
    ready: dict[str, Tensor] = {}
    unexpected = []
    routed: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in chosen.routes}
    for key, value in tensors.items():
        prefix = next((prefix for prefix in chosen.routes if key.startswith(prefix)), None)
        if prefix is not None:
            routed[prefix][key.removeprefix(prefix)] = value
        elif (reason := chosen.reason(key)) is not None:
            report.ignored[key] = reason
        elif (name := chosen.rename(key)) is not None:
            ready[name] = value
        else:
            unexpected.append(key)
    for prefix, group in routed.items():
        if group:
            ready |= _route(module, chosen.routes[prefix], prefix, group, report)
    if chosen.adapt is not None:
        ready = chosen.adapt(ready, module, report.notes)
    target = module.state_dict()
    unexpected += [name for name in ready if name not in target]
    if unexpected:
        raise WeightsError(_complaint(module, chosen.name, {"unexpected": unexpected}))
    return {inner + name: _squeeze(value, target[name]) for name, value in ready.items()}


def _route(module: nn.Module, path: str, prefix: str, group: dict[str, Tensor], report: Report) -> dict[str, Tensor]:
    below = Report(format="")
    ready = convert(module.get_submodule(path), group, report=below)
    report.ignored |= {prefix + key: reason for key, reason in below.ignored.items()}
    report.notes += [f"{path}: {note}" for note in below.notes]
    return {f"{path}.{name}": value for name, value in ready.items()}


def _choose(module: nn.Module, tensors: Mapping[str, Tensor], name: str | None) -> Format:
    from mmrnn.weights.formats import FORMATS

    kind = type(module).__name__
    own = Format("mmrnn", kind, marks=(), names={"*": "*"})
    if name is not None:
        named = [f for f in (own, *FORMATS) if f.name == name and f.fits(module, f.marks)]
        if not named:
            known = sorted({f.name for f in FORMATS if f.fits(module, f.marks)} | {"mmrnn"})
            raise WeightsError(f"{kind} has no weight format {name!r}; it knows {', '.join(known)}")
        return named[0]
    if tensors and set(tensors) <= set(module.state_dict()):
        return own
    fitting = [f for f in FORMATS if f.fits(module, tensors)]
    # A format for the class itself goes before one for a class that it extends.
    fitting = [f for f in fitting if f.part == kind] or fitting
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(sorted(f.name for f in fitting))
        raise WeightsError(f"these weights could be any of {names}: say format=... which of them they are")
    known = sorted({f.name for f in FORMATS if f.fits(module, f.marks)} | {"mmrnn"})
    shown = ", ".join(list(tensors)[:3]) or "nothing"
    raise WeightsError(f"no format of {kind} ({', '.join(known)}) has these names: {shown}, ...")


def _sole_part(module: nn.Module) -> tuple[nn.Module, str]:
    """A chain of which one part alone has tensors stands for that part (a pooled projection is a projection)."""
    prefix = ""
    while type(module).__name__ == "Chain":
        filled = [(index, part) for index, part in enumerate(module.parts) if part.state_dict()]
        if len(filled) != 1:
            break
        prefix += f"parts.{filled[0][0]}."
        module = filled[0][1]
    return module, prefix


def _unwrap(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors = dict(tensors)
    while tensors:
        prefix = next((p for p in WRAPPERS if all(key.startswith(p) for key in tensors)), None)
        if prefix is None:
            break
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _squeeze(value: Tensor, target: Tensor) -> Tensor:
    """Axes of length one may differ: RWKV files keep vectors as (1, 1, d)."""
    same = [n for n in value.shape if n != 1] == [n for n in target.shape if n != 1]
    return value.reshape(target.shape) if same else value


def _complaint(module: nn.Module, format: str, faults: Mapping[str, list[str]]) -> str:
    lines = [f"weights of the format {format!r} do not fit {type(module).__name__}:"]
    for what, names in faults.items():
        for name in names[:10]:
            lines.append(f"  {what}: {name}")
        if len(names) > 10:
            lines.append(f"  {what}: ... and {len(names) - 10} more")
    return "\n".join(lines)
