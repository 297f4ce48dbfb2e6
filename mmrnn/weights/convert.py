"""Which format tensors have, and their names and shapes turned into ours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mmrnn.types import Composite
from mmrnn.weights.format import Format, classes, most_specific
from mmrnn.weights.registry import FORMATS

WRAPPERS = ("module.", "_forward_module.", "_fsdp_wrapped_module.", "_orig_mod.", "base_model.model.")
"""Prefixes that training wrappers put before every name."""

INSIDE = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.", "base_model.model.")
"""Levels that wrappers of single layers, and of a part of a model, put into the middle of a name."""

JOINT = ", "
"""Between the formats of the parts, where a file has several."""

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
    module, inner = unwrap_single(module)
    tensors = strip_wrapper_prefixes(tensors)
    chosen = _choose(module, tensors, format, whole)
    if chosen is None:
        return _by_parts(module, tensors, format, report, whole)
    ready = _apply(chosen, module, tensors, report, whole)
    return {inner + name: value for name, value in ready.items()}


def _apply(
    chosen: Format, module: nn.Module, tensors: dict[str, Tensor], report: Report, whole: bool
) -> dict[str, Tensor]:
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
        if (part := _submodule(module, path)) is None:
            unexpected += places[path].values()
            continue
        found = convert(part, group, report=below, whole=whole)
        report.ignored |= {places[path].get(key, key): reason for key, reason in below.ignored.items()}
        report.notes += [f"{path}: {note}" for note in below.notes]
        ready |= {f"{path}.{name}": value for name, value in found.items()}
        group.clear()
    if chosen.adapt is not None:
        ready = chosen.adapt(ready, module, report.notes)
    target = module.state_dict()
    unexpected += [name for name in ready if name not in target]
    if unexpected:
        raise WeightsError(mismatch_message(module, chosen.name, {"unexpected": unexpected}))
    return {name: _squeeze(value, target[name]) for name, value in ready.items()}


def _choose(module: nn.Module, tensors: Mapping[str, Tensor], name: str | None, whole: bool) -> Format | None:
    """The format; None: there is none for the whole, and the parts have to say what theirs is."""
    kinds = classes(module)
    own = Format(OWN, kinds[0], signature=(), names={"*": "*"})
    known = _known(module)
    if name is not None:
        named = [f for f in (own, *FORMATS) if f.name == name and f.fits(module, f.signature)]
        inner = {one for part in parts(module).values() for one in _known(unwrap_single(part)[0])}
        if not named and set(name.split(JOINT)) <= inner:
            return None
        if not named:
            raise WeightsError(f"{kinds[0]} has no weight format {name!r}; it knows {', '.join(known)}")
        # One name may stand for several variants, each with marks of its own.
        return (_nearest(kinds, [f for f in named if f.fits(module, tensors)]) or named)[0]
    if tensors and set(tensors) <= set(module.state_dict()):
        return own
    fitting = _nearest(kinds, [f for f in FORMATS if f.fits(module, tensors)])
    if not fitting and not whole:
        fitting, most = _knowing(module, tensors)
        if parts(module) and _taken_by_parts(module, tensors) > most:
            return None
    if len({f.name for f in fitting}) > 1:
        names = ", ".join(sorted(f.name for f in fitting))
        raise WeightsError(f"these weights could be any of {names}: say format=... which of them they are")
    if fitting:
        return fitting[0]
    if parts(module):
        return None
    shown = ", ".join(list(tensors)[:3]) or "nothing"
    raise WeightsError(f"no format of {kinds[0]} ({', '.join(known)}) has these names: {shown}, ...")


def _nearest(kinds: Sequence[str], fitting: list[Format]) -> list[Format]:
    """A format for the class itself goes before one for a class that it extends, and one that is known by more."""
    first = next((kind for kind in kinds if any(form.part == kind for form in fitting)), None)
    return most_specific([form for form in fitting if form.part == first])


def _known(module: nn.Module) -> list[str]:
    """The formats of a part."""
    return sorted({form.name for form in FORMATS if form.fits(module, form.signature)} | {OWN})


def parts(module: nn.Module) -> Mapping[str, nn.Module]:
    """Inner modules that have weight formats of their own."""
    return module.weight_parts() if isinstance(module, Composite) else {}


def _by_parts(
    module: nn.Module, tensors: Mapping[str, Tensor], format: str | None, report: Report, whole: bool
) -> dict[str, Tensor]:
    """Every part is given the whole file, and takes what is its own; what none takes, one has to have a reason for."""
    ready, formats, faults = {}, [], []
    used: set[str] = set()
    for path, part in parts(module).items():
        below = Report(format="")
        named = next((name for name in (format or "").split(JOINT) if name in _known(unwrap_single(part)[0])), None)
        try:
            found = convert(part, tensors, format=named, report=below, whole=whole)
        except WeightsError as fault:
            faults.append(f"{path}: {fault}")
            continue
        formats += [below.format] if found else []
        used |= set(tensors) - set(below.ignored)
        report.ignored = {**below.ignored, **report.ignored}
        report.notes += [f"{path}: {note}" for note in below.notes]
        ready |= {f"{path}.{name}": value for name, value in found.items()}
    if faults and (whole or not formats):
        raise WeightsError("\n".join(faults))
    if lost := sorted(set(tensors) - used - set(report.ignored)):
        raise WeightsError(mismatch_message(module, JOINT.join(formats), {"unexpected": lost}))
    report.format = JOINT.join(dict.fromkeys(formats))
    report.ignored = {name: reason for name, reason in report.ignored.items() if name not in used}
    return ready


def _submodule(module: nn.Module, path: str) -> nn.Module | None:
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def _taken_by_parts(module: nn.Module, tensors: Mapping[str, Tensor]) -> int:
    try:
        return len(_by_parts(module, tensors, None, Report(format=""), whole=False))
    except WeightsError:
        return 0


def _knowing(module: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[list[Format], int]:
    """The formats that know every name and take the most of them, and how many these are.

    Of those that make the same of them the first is enough.
    """
    found: list[tuple[Format, dict[str, Tensor]]] = []
    for form in FORMATS:
        if not form.fits(module, form.signature):
            continue
        try:
            ready = _apply(form, module, dict(tensors), Report(format=""), whole=False)
        except WeightsError:
            continue
        if not any(_alike(ready, other) for _, other in found):
            found.append((form, ready))
    most = max((len(ready) for _, ready in found), default=0)
    return [form for form, ready in found if len(ready) == most], most


def _alike(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def unwrap_single(module: nn.Module) -> tuple[nn.Module, str]:
    """The part that a module is published as, and its path."""
    prefix = ""
    while isinstance(module, Composite) and (path := module.weight_root()):
        module = module.get_submodule(path)
        prefix += f"{path}."
    return module, prefix


def strip_wrapper_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
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


def mismatch_message(module: nn.Module, format: str, faults: Mapping[str, list[str]]) -> str:
    lines = [f"weights of the format {format!r} do not fit {type(module).__name__}:"]
    for what, names in faults.items():
        for name in names[:10]:
            lines.append(f"  {what}: {name}")
        if len(names) > 10:
            lines.append(f"  {what}: ... and {len(names) - 10} more")
    return "\n".join(lines)
