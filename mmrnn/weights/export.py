"""Export: our tensors under the names of another project."""

from collections.abc import Mapping

from torch import Tensor, nn

from mmrnn.weights.convert import NATIVE, WeightsError
from mmrnn.weights.format import Format
from mmrnn.weights.registry import FORMATS


def export(module: nn.Module, format: str) -> dict[str, Tensor]:
    """Tensors of a part in a writable format.

    Raises:
        WeightsError: the part has no such writable format, or a tensor has no name or several in it.
    """
    return rename(module.state_dict(), type(module), format)


def rename(tensors: Mapping[str, Tensor], part: type, format: str) -> dict[str, Tensor]:
    """Rename the tensors of a part to a writable format.

    Args:
        part: class of the part.

    Raises:
        WeightsError: the part has no such writable format, or a tensor has no name or several in it.
    """
    if format == NATIVE:
        return dict(tensors)
    formats = writable_formats(part)
    chosen = [form for form in formats if form.name == format]
    if not chosen:
        known = ", ".join(sorted({form.name for form in formats} | {NATIVE}))
        raise WeightsError(f"no format {format!r} can be written for {part.__name__}; it has {known}")
    errors = []
    for form in chosen:
        try:
            renamed = _rename(tensors, form)
        except WeightsError as error:
            errors.append(error)
            continue
        if set(form.signature) <= set(renamed):
            return renamed
    raise errors[0] if errors else WeightsError(f"these tensors lack the signature of the format {format!r}")


def writable_formats(part: type) -> list[Format]:
    """Formats in which a part of that class can be written."""
    return [form for form in FORMATS if form.part in part.__mro__ and form.writable]


def _rename(tensors: Mapping[str, Tensor], form: Format) -> dict[str, Tensor]:
    renamed = {}
    for name, value in (form.inverse(dict(tensors)) if form.inverse else tensors).items():
        candidates = form.their_names(name)
        if len(candidates) != 1:
            problem = f"could be any of {', '.join(candidates)}" if candidates else "has no name"
            raise WeightsError(f"{name} {problem} in the format {form.name!r}; choose another format")
        renamed[candidates[0]] = value
    return renamed
