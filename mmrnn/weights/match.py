"""Which format tensors have, and their names and shapes turned into ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mmrnn.weights.format import Format, closest

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
    module, inner = sole_part(module)
    tensors = unwrap(tensors)
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
        raise WeightsError(complaint(module, chosen.name, {"unexpected": unexpected}))
    return {name: _squeeze(value, target[name]) for name, value in ready.items()}


def _choose(module: nn.Module, tensors: Mapping[str, Tensor], name: str | None, whole: bool) -> Format | None:
    """The format; None: there is none for the whole, and the parts have to say what theirs is."""
    from mmrnn.weights.formats import FORMATS

    kind = type(module).__name__
    own = Format(OWN, kind, marks=(), names={"*": "*"})
    known = _known(module)
    if name is not None:
        named = [f for f in (own, *FORMATS) if f.name == name and f.fits(module, f.marks)]
        inner = {one for part in parts(module).values() for one in _known(sole_part(part)[0])}
        if not named and set(name.split(JOINT)) <= inner:
            return None
        if not named:
            raise WeightsError(f"{kind} has no weight format {name!r}; it knows {', '.join(known)}")
        # One name may stand for several variants, each with marks of its own.
        return (_nearest(kind, [f for f in named if f.fits(module, tensors)]) or named)[0]
    if tensors and set(tensors) <= set(module.state_dict()):
        return own
    fitting = _nearest(kind, [f for f in FORMATS if f.fits(module, tensors)])
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
    raise WeightsError(f"no format of {kind} ({', '.join(known)}) has these names: {shown}, ...")


def _nearest(kind: str, fitting: list[Format]) -> list[Format]:
    """A format for the class itself goes before one for a class that it extends, and one that is known by more."""
    return closest([form for form in fitting if form.part == kind] or fitting)


def _known(module: nn.Module) -> list[str]:
    """The formats of a part."""
    from mmrnn.weights.formats import FORMATS

    return sorted({form.name for form in FORMATS if form.fits(module, form.marks)} | {OWN})


def parts(module: nn.Module) -> dict[str, nn.Module]:
    """The parts of a model, or of a sense, that have tensors; of anything else none."""
    found = {}
    if type(module).__name__ == "Sense":
        found = {"encoder": module.encoder, "connector": module.connector}
    elif type(module).__name__ == "VLM":
        found = {"backbone": module.backbone}
        for name, sense in module.senses.items():
            found |= {f"senses.{name}.{path}": part for path, part in parts(sense).items()}
        found |= {} if module.hook is None else {"hook": module.hook}
    return {path: part for path, part in found.items() if part.state_dict()}


def _by_parts(
    module: nn.Module, tensors: Mapping[str, Tensor], format: str | None, report: Report, whole: bool
) -> dict[str, Tensor]:
    """Every part is given the whole file, and takes what is its own; what none takes, one has to have a reason for."""
    ready, formats, faults = {}, [], []
    used: set[str] = set()
    for path, part in parts(module).items():
        below = Report(format="")
        named = next((name for name in (format or "").split(JOINT) if name in _known(sole_part(part)[0])), None)
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
        raise WeightsError(complaint(module, JOINT.join(formats), {"unexpected": lost}))
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
    from mmrnn.weights.formats import FORMATS

    found: list[tuple[Format, dict[str, Tensor]]] = []
    for form in FORMATS:
        if not form.fits(module, form.marks):
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


def sole_part(module: nn.Module) -> tuple[nn.Module, str]:
    """A chain of which one part alone has tensors stands for that part (a pooled projection is a projection), and
    what lays tokens beside the text for the part that makes them."""
    prefix = ""
    while type(module).__name__ in ("Chain", "Beside"):
        filled = [(name, part) for name, part in _inner(module) if part.state_dict()]
        if len(filled) != 1:
            break
        prefix += f"{filled[0][0]}."
        module = filled[0][1]
    return module, prefix


def _inner(module: nn.Module) -> list[tuple[str, nn.Module]]:
    if type(module).__name__ == "Beside":
        return [("part", module.part)]
    return [(f"parts.{index}", part) for index, part in enumerate(module.parts)]


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


def complaint(module: nn.Module, format: str, faults: Mapping[str, list[str]]) -> str:
    lines = [f"weights of the format {format!r} do not fit {type(module).__name__}:"]
    for what, names in faults.items():
        for name in names[:10]:
            lines.append(f"  {what}: {name}")
        if len(names) > 10:
            lines.append(f"  {what}: ... and {len(names) - 10} more")
    return "\n".join(lines)
