"""Conversion of tensors in any known format to the names and shapes of a module."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mmrnn.types import Composite
from mmrnn.weights.format import Format, inner_parts, most_specific
from mmrnn.weights.registry import FORMATS, UNSUPPORTED
from mmrnn.weights.wrapper_prefixes import strip_attribute, strip_wrapper_prefixes

NATIVE = "mmrnn"
"""Format of our own names, which every part has."""

EMBEDDER = "embedder."
"""Prefix, in a whole model of ours, of the heads by which a trained objective embeds images and texts."""

SEPARATOR = ", "
"""Between the names of several formats in `Report.format`."""

MAX_LISTED = 10
"""Names listed in an error message for each kind of mismatch."""


class WeightsError(ValueError):
    """The tensors do not fit the module; the message lists the mismatches."""


@dataclass
class Report:
    """Result of a conversion.

    Attributes:
        format: name of the format, or of the formats of the parts.
        loaded: number of tensors of the module that were set.
        ignored: name in the source -> reason why it was not loaded.
        notes: changes of tensors beyond renaming.
        fresh: names in the module of what the format never has: they stay as initialised.
    """

    format: str
    loaded: int = 0
    ignored: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    fresh: set[str] = field(default_factory=set)


def convert(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    format: str | None = None,
    report: Report | None = None,
    partial: bool = False,
) -> dict[str, Tensor]:
    """Rename and reshape tensors to those of `module`.

    Every change is linear, so gradients can be converted as well as weights.

    Args:
        format: name of the format; None: recognised by the names of the tensors.
        report: filled in.
        partial: the source may lack the signature of its format (a LoRA): take the format that knows all of its names.

    Raises:
        WeightsError: unknown or ambiguous format, or names that the module does not have.
    """
    report = Report(format="") if report is None else report
    module, prefix = unwrap_single(module)
    tensors = strip_wrapper_prefixes(tensors)
    chosen = _choose(module, tensors, format, partial)
    if chosen is None:
        return _convert_parts(module, tensors, format, report, partial)
    converted = _apply(chosen, module, tensors, report, partial)
    report.fresh = {prefix + name for name in report.fresh}
    return {prefix + name: value for name, value in converted.items()}


def unwrap(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove from all names what training wrappers have added, the attribute of a LightningModule included."""
    parts = [module, unwrap_single(module)[0], *(unwrap_single(part)[0] for part in inner_parts(module).values())]
    own = {name for part in parts for name in part.state_dict()}

    def is_known(keys: Iterable[str]) -> bool:
        keys = set(keys)
        return keys <= own or any(form.signature and form.fits(part, keys) for form in FORMATS for part in parts)

    return strip_attribute(strip_wrapper_prefixes(tensors), is_known)


def unwrap_single(module: nn.Module) -> tuple[nn.Module, str]:
    """Inner module that a module is published as, and the prefix of its names; most are published as themselves."""
    prefix = ""
    while isinstance(module, Composite) and (path := module.weight_root()):
        module = module.get_submodule(path)
        prefix += f"{path}."
    return module, prefix


def mismatch_message(module: nn.Module, format: str, mismatches: Mapping[str, list[str]]) -> str:
    """Error message: kinds of mismatches (missing, unexpected, of another shape), each with the names of tensors."""
    lines = [f"weights of the format {format!r} do not fit {type(module).__name__}:"]
    for kind, names in mismatches.items():
        lines += [f"  {kind}: {name}" for name in names[:MAX_LISTED]]
        if len(names) > MAX_LISTED:
            lines.append(f"  {kind}: ... and {len(names) - MAX_LISTED} more")
    return "\n".join(lines)


def _apply(
    chosen: Format, module: nn.Module, tensors: dict[str, Tensor], report: Report, partial: bool
) -> dict[str, Tensor]:
    """Convert from one format; empties `tensors`, so that a mapped file can be released tensor by tensor."""
    report.format = chosen.name
    converted: dict[str, Tensor] = {}
    unexpected = []
    groups: dict[str, dict[str, Tensor]] = {}
    keys: dict[str, dict[str, str]] = {}
    for key in list(tensors):
        value = tensors.pop(key)
        if (reason := chosen.reason(key)) is not None:
            report.ignored[key] = reason
        elif (target := chosen.submodule(key)) is not None:
            path, name = target
            groups.setdefault(path, {})[name] = value
            keys.setdefault(path, {})[name] = key
        elif (name := chosen.rename(key)) is not None:
            converted[name] = value
        else:
            unexpected.append(key)
    for path, group in groups.items():
        inner = Report(format="")
        if (part := _submodule(module, path)) is None:
            unexpected += keys[path].values()
            continue
        part_tensors = convert(part, group, report=inner, partial=partial)
        report.ignored |= {keys[path].get(key, key): reason for key, reason in inner.ignored.items()}
        report.notes += [f"{path}: {note}" for note in inner.notes]
        report.fresh |= {f"{path}.{name}" for name in inner.fresh}
        converted |= {f"{path}.{name}": value for name, value in part_tensors.items()}
        group.clear()
    if chosen.adapt is not None:
        converted = chosen.adapt(converted, module, report.notes)
    target_tensors = module.state_dict()
    report.fresh |= {name for name in target_tensors if name not in converted and chosen.is_fresh(name)}
    unexpected += [name for name in converted if name not in target_tensors]
    if unexpected:
        raise WeightsError(mismatch_message(module, chosen.name, {"unexpected": unexpected}))
    return {name: _match_unit_axes(value, target_tensors[name]) for name, value in converted.items()}


def _convert_parts(
    module: nn.Module, tensors: Mapping[str, Tensor], format: str | None, report: Report, partial: bool
) -> dict[str, Tensor]:
    """Convert part by part: each is given the whole source. A tensor that no part takes must be ignored by one."""
    converted, formats, errors = {}, [], []
    used: set[str] = set()
    for path, part in inner_parts(module).items():
        inner = Report(format="")
        known = _format_names(unwrap_single(part)[0])
        part_format = next((name for name in (format or "").split(SEPARATOR) if name in known), None)
        try:
            part_tensors = convert(part, tensors, format=part_format, report=inner, partial=partial)
        except WeightsError as error:
            errors.append(f"{path}: {error}")
            continue
        formats += [inner.format] if part_tensors else []
        used |= set(tensors) - set(inner.ignored)
        report.ignored = {**inner.ignored, **report.ignored}
        report.notes += [f"{path}: {note}" for note in inner.notes]
        report.fresh |= {f"{path}.{name}" for name in inner.fresh}
        converted |= {f"{path}.{name}": value for name, value in part_tensors.items()}
    if errors and (not partial or not formats):
        raise WeightsError("\n".join(errors))
    if unexpected := sorted(set(tensors) - used - set(report.ignored)):
        raise WeightsError(mismatch_message(module, SEPARATOR.join(formats), {"unexpected": unexpected}))
    report.format = SEPARATOR.join(dict.fromkeys(formats))
    report.ignored = {key: reason for key, reason in report.ignored.items() if key not in used}
    return converted


def _choose(module: nn.Module, tensors: Mapping[str, Tensor], name: str | None, partial: bool) -> Format | None:
    """Format of the tensors; None: each part has one of its own."""
    native = Format(NATIVE, type(module), signature=(), names={"*": "*"})
    known, kind = _format_names(module), type(module).__name__
    if name is not None:
        named = [form for form in (native, *FORMATS) if form.name == name and form.fills(module)]
        of_parts = {one for part in inner_parts(module).values() for one in _format_names(unwrap_single(part)[0])}
        if not named and set(name.split(SEPARATOR)) <= of_parts:
            return None
        if not named:
            raise WeightsError(f"{kind} has no weight format {name!r}; it knows {', '.join(known)}")
        # One name may stand for several variants, each with a signature of its own.
        return (_nearest(module, [form for form in named if form.fits(module, tensors)]) or named)[0]
    if tensors and set(tensors) <= set(module.state_dict()):
        return native
    fitting = _nearest(module, [form for form in FORMATS if form.fits(module, tensors)])
    if not fitting and partial:
        fitting, count = _best_coverage(module, tensors)
        if inner_parts(module) and _count_taken_by_parts(module, tensors) > count:
            return None
    if len(names := {form.name for form in fitting}) > 1:
        raise WeightsError(f"these weights could be any of {', '.join(sorted(names))}: choose one by format=...")
    if fitting:
        return fitting[0]
    if inner_parts(module):
        return None
    examples = ", ".join(list(tensors)[:3]) or "nothing"
    raise WeightsError(f"no format of {kind} ({', '.join(known)}) has these names: {examples}, ...{describe(tensors)}")


def describe(tensors: Mapping[str, Tensor]) -> str:
    """End of an error message: the parts whose formats have these names; empty if there are none."""
    fitting = most_specific([form for form in FORMATS if form.signature and set(form.signature) <= set(tensors)])
    kinds = [f"{form.part_name} (format {form.name})" for form in fitting]
    kinds = kinds or [kind for kind, names in UNSUPPORTED.items() if set(names) <= set(tensors)]
    return f"; they are those of {' or '.join(dict.fromkeys(kinds))}" if kinds else ""


def _nearest(module: nn.Module, formats: list[Format]) -> list[Format]:
    """Formats for the nearest class of the MRO (those for any module come last), with the longest signatures."""
    classes = [*type(module).__mro__, None]
    nearest = next((kind for kind in classes if any(form.part is kind for form in formats)), None)
    return most_specific([form for form in formats if form.part is nearest])


def _format_names(module: nn.Module) -> list[str]:
    return sorted({form.name for form in FORMATS if form.fills(module)} | {NATIVE})


def _submodule(module: nn.Module, path: str) -> nn.Module | None:
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def _count_taken_by_parts(module: nn.Module, tensors: Mapping[str, Tensor]) -> int:
    try:
        return len(_convert_parts(module, tensors, None, Report(format=""), partial=True))
    except WeightsError:
        return 0


def _best_coverage(module: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[list[Format], int]:
    """Formats that know every name and take the most tensors, and that number. Equal results are listed once."""
    results: list[tuple[Format, dict[str, Tensor]]] = []
    for form in FORMATS:
        if not form.fills(module):
            continue
        try:
            converted = _apply(form, module, dict(tensors), Report(format=""), partial=True)
        except WeightsError:
            continue
        if not any(_equal(converted, other) for _, other in results):
            results.append((form, converted))
    most = max((len(converted) for _, converted in results), default=0)
    return [form for form, converted in results if len(converted) == most], most


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def _match_unit_axes(value: Tensor, target: Tensor) -> Tensor:
    """Add or drop axes of length one: RWKV files keep vectors as (1, 1, d)."""
    same = [n for n in value.shape if n != 1] == [n for n in target.shape if n != 1]
    return value.reshape(target.shape) if same else value
