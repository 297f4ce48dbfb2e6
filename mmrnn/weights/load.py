"""Tensors of a file or a dictionary into a module: completely, or with a list of what does not fit."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mmrnn.weights import lora
from mmrnn.weights.files import Source, facts, read
from mmrnn.weights.format import Format

WRAPPERS = ("module.", "_forward_module.", "_fsdp_wrapped_module.", "_orig_mod.", "base_model.model.")
"""Prefixes that training wrappers put before every name."""

INSIDE = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")
"""Levels that wrappers of single layers put into the middle of a name."""

OWN = "mmrnn"
"""The format of our own names, which every part has."""


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
    module: nn.Module,
    source: Source | Mapping[str, Tensor],
    *,
    format: str | None = None,
    strict: bool = True,
) -> Report:
    """Fill `module` from a file, a folder, the hub or a dictionary of tensors.

    Every name of the source is used or ignored for a stated reason, and (`strict`) every parameter of the module is
    set. Nothing is changed when the load fails. Files are mapped and let go tensor by tensor; a module on the meta
    device takes the tensors of the file as they are, so nothing is held twice.

    A LoRA without its base is added to the weights that the module has: load the base first, and the LoRA once.

    Args:
        source: see `mmrnn.weights.files.read`, or name -> tensor.
        format: name of the format; None recognises it by the names of the tensors.

    Raises:
        WeightsError: unknown or ambiguous format, missing, unexpected or mis-shaped tensors.
        FileNotFoundError, ConnectionError, ValueError: the source cannot be read.
    """
    report = Report(format="")
    if isinstance(source, Mapping):
        tensors, beside = unwrap(source), {}
    else:
        tensors = unwrap(read(source))
        beside = facts(source) if lora.is_lora(tensors) else {}
    added: dict[str, Tensor] = {}
    # A module that has these very matrices takes them as they are.
    if lora.is_lora(tensors) and not set(tensors) <= set(module.state_dict()):
        tensors, added = lora.split(tensors, beside)
    if added:
        return _add(module, tensors, added, format, report)
    ready = convert(module, tensors, format=format, report=report)
    del tensors
    _check(module, ready, report.format, complete=strict)
    report.loaded = len(ready)
    _put(module, ready)
    return report


def _add(
    module: nn.Module, tensors: dict[str, Tensor], added: dict[str, Tensor], format: str | None, report: Report
) -> Report:
    """A LoRA, and what was trained as it is beside it, onto the base that the module holds."""
    every = convert(module, tensors | added, format=format, report=report, whole=False)
    alone = convert(module, tensors, format=report.format, whole=False) if tensors else {}
    _check(module, every, report.format, complete=False)
    target = module.state_dict()
    with torch.no_grad():
        for name, value in every.items():
            if name in alone:
                target[name].copy_(value)
            else:
                target[name].add_(value.to(target[name].dtype))
    report.loaded = len(every)
    report.notes.append(f"{len(every) - len(alone)} tensors of a LoRA were added to the weights that were there")
    return report


def _check(module: nn.Module, ready: Mapping[str, Tensor], format: str, complete: bool) -> None:
    target = module.state_dict()
    shapes = [
        f"{name}: {tuple(value.shape)}, the module has {tuple(target[name].shape)}"
        for name, value in ready.items()
        if value.shape != target[name].shape
    ]
    faults = {"missing": sorted(set(target) - set(ready)) if complete else [], "of another shape": shapes}
    if any(faults.values()):
        raise WeightsError(_complaint(module, format, faults))


@torch.no_grad()
def _put(module: nn.Module, ready: dict[str, Tensor]) -> None:
    """Copy each tensor, or give it to a module that has no memory for it, and let go of it."""
    made: dict[int, nn.Parameter] = {}
    for name in list(ready):
        value = ready.pop(name)
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        old = owner._parameters[leaf] if leaf in owner._parameters else owner._buffers[leaf]
        if not old.is_meta:
            old.copy_(value)
        elif leaf in owner._buffers:
            owner._buffers[leaf] = value.to(old.dtype)
        else:
            # Two names of one parameter stay one.
            new = made.setdefault(id(old), nn.Parameter(value.to(old.dtype), requires_grad=old.requires_grad))
            owner._parameters[leaf] = new


def convert(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    format: str | None = None,
    report: Report | None = None,
    whole: bool = True,
) -> dict[str, Tensor]:
    """The tensors under the names and in the shapes that `module` has for them.

    Works for gradients as well as for weights: whatever is changed is changed linearly.

    Args:
        whole: the source is known by its marks; else any format is taken that knows all of its names.
    """
    report = Report(format="") if report is None else report
    module, inner = _sole_part(module)
    tensors = unwrap(tensors)
    chosen = _choose(module, tensors, format, whole)
    report.format = chosen.name
    ready: dict[str, Tensor] = {}
    unexpected = []
    routed: dict[str, dict[str, Tensor]] = {}
    places: dict[str, dict[str, str]] = {}
    for key in list(tensors):
        value = tensors.pop(key)
        if (reason := chosen.reason(key)) is not None:
            report.ignored[key] = reason
        elif (route := chosen.route(key)) is not None:
            path, name = route
            routed.setdefault(path, {})[name] = value
            places.setdefault(path, {})[name] = key
        elif (name := chosen.rename(key)) is not None:
            ready[name] = value
        else:
            unexpected.append(key)
    for path, group in routed.items():
        below = Report(format="")
        found = convert(module.get_submodule(path), group, report=below, whole=whole)
        report.ignored |= {places[path].get(key, key): reason for key, reason in below.ignored.items()}
        report.notes += [f"{path}: {note}" for note in below.notes]
        ready |= {f"{path}.{name}": value for name, value in found.items()}
        group.clear()
    if chosen.adapt is not None:
        ready = chosen.adapt(ready, module, report.notes)
    target = module.state_dict()
    unexpected += [name for name in ready if name not in target]
    if unexpected:
        raise WeightsError(_complaint(module, chosen.name, {"unexpected": unexpected}))
    return {inner + name: _squeeze(value, target[name]) for name, value in ready.items()}


def _choose(module: nn.Module, tensors: Mapping[str, Tensor], name: str | None, whole: bool) -> Format:
    from mmrnn.weights.formats import FORMATS

    kind = type(module).__name__
    own = Format(OWN, kind, marks=(), names={"*": "*"})
    known = sorted({f.name for f in FORMATS if f.fits(module, f.marks)} | {OWN})
    if name is not None:
        named = [f for f in (own, *FORMATS) if f.name == name and f.fits(module, f.marks)]
        if not named:
            raise WeightsError(f"{kind} has no weight format {name!r}; it knows {', '.join(known)}")
        # One name may stand for several variants, each with marks of its own.
        fitting = [f for f in named if f.fits(module, tensors)]
        return (fitting or named)[0]
    if tensors and set(tensors) <= set(module.state_dict()):
        return own
    fitting = [f for f in FORMATS if f.fits(module, tensors)]
    # A format for the class itself goes before one for a class that it extends.
    fitting = [f for f in fitting if f.part == kind] or fitting
    if not fitting and not whole:
        fitting = [f for f in FORMATS if f.fits(module, f.marks) and _knows(f, module, tensors)]
    if len({f.name for f in fitting}) > 1:
        names = ", ".join(sorted(f.name for f in fitting))
        raise WeightsError(f"these weights could be any of {names}: say format=... which of them they are")
    if fitting:
        return fitting[0]
    shown = ", ".join(list(tensors)[:3]) or "nothing"
    raise WeightsError(f"no format of {kind} ({', '.join(known)}) has these names: {shown}, ...")


def _knows(format: Format, module: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    try:
        convert(module, tensors, format=format.name, whole=False)
    except WeightsError:
        return False
    return True


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


def unwrap(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors = dict(tensors)
    while tensors:
        prefix = next((p for p in WRAPPERS if all(key.startswith(p) for key in tensors)), None)
        if prefix is None:
            break
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    for level in INSIDE:
        tensors = {key.replace(level, ""): value for key, value in tensors.items()}
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
