"""The way back: our tensors under the names of somebody else."""

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from mmrnn.weights.convert import OWN, WeightsError
from mmrnn.weights.format import Format


def export(module: nn.Module, format: str) -> dict[str, Tensor]:
    """The tensors of a part as a project that we can read names them. See `rename`."""
    return rename(module.state_dict(), [kind.__name__ for kind in type(module).__mro__], format)


def rename(tensors: Mapping[str, Tensor], classes: Collection[str], format: str) -> dict[str, Tensor]:
    """
    Args:
        classes: names of the class that the tensors are of, and of what it inherits.
        format: one that is known in both directions.

    Raises:
        WeightsError: there is no such format, or a tensor has no name in it, or several.
    """
    if format == OWN:
        return dict(tensors)
    known = ", ".join(sorted({form.name for form in writable(classes)} | {OWN}))
    chosen = [form for form in writable(classes) if form.name == format]
    if not chosen:
        raise WeightsError(f"no format {format!r} can be written for this part; it has {known}")
    complaints = []
    for form in chosen:
        try:
            named = _rename(tensors, form)
        except WeightsError as fault:
            complaints.append(fault)
            continue
        if set(form.signature) <= set(named):
            return named
    raise complaints[0] if complaints else WeightsError(f"these tensors are not all that {format!r} is known by")


def writable(classes: Collection[str]) -> list[Format]:
    """The formats of a part that can be written."""
    from mmrnn.weights.registry import FORMATS

    return [form for form in FORMATS if form.part in classes and form.writable]


def _rename(tensors: Mapping[str, Tensor], form: Format) -> dict[str, Tensor]:
    named = {}
    for name, value in (form.inverse(dict(tensors)) if form.inverse else tensors).items():
        found = form.their_names(name)
        if len(found) != 1:
            which = f"could be any of {', '.join(found)}" if found else "has no name"
            raise WeightsError(f"{name} {which} in the format {form.name!r}")
        named[found[0]] = value
    return named
