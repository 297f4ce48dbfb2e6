"""Format, sizes and card of a part, inferred from the names and shapes of published tensors."""

from collections.abc import Iterable, Mapping
from inspect import Parameter
from typing import Any

from torch import Tensor

from mmrnn.config.instantiate import parameters
from mmrnn.io.errors import first_line
from mmrnn.types import Backbone, Connector, Encoder, fulfils
from mmrnn.weights import Format, WeightsError
from mmrnn.weights.convert import describe
from mmrnn.weights.format import Sizes, most_specific
from mmrnn.weights.registry import FORMATS

CONTRACTS = {"backbone": Backbone, "connector": Connector, "encoder": Encoder}
"""Group of cards -> contract of its classes."""


def recognise(tensors: Mapping[str, Tensor], name: str | None = None) -> Format:
    """Format whose signature the tensors have, among those from which a configuration can be inferred.

    Args:
        name: of the format, where several fit.

    Raises:
        WeightsError: none fits, or several.
    """
    candidates = [form for form in FORMATS if form.infer or form.preset]
    fitting = [form for form in candidates if set(form.signature) <= set(tensors)]
    whole = [form for form in fitting if form.preset]
    fitting = most_specific([form for form in whole or fitting if name in (None, form.name)])
    if len({(form.name, form.part) for form in fitting}) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(sorted(f"{form.name} ({form.part_name})" for form in fitting))
        raise WeightsError(f"these weights could be any of {names}: choose one by --format NAME")
    known = ", ".join(sorted({form.name for form in candidates}))
    examples = ", ".join(list(tensors)[:3]) + describe(tensors)
    raise WeightsError(f"no format whose sizes can be inferred ({known}) has these names: {examples}")


def is_recognised(keys: Iterable[str]) -> bool:
    """True if the whole signature of some format is among the names."""
    keys = set(keys)
    return any(form.signature and set(form.signature) <= keys for form in FORMATS)


def make_card(part: type, sizes: Sizes) -> tuple[str, dict[str, Any]]:
    """Group and card of a part of these sizes."""
    group = next(group for group, contract in CONTRACTS.items() if fulfils(part, contract))
    target = f"{part.__module__.rpartition('.')[0]}.{part.__name__}"
    knobs = {name: knob.default for name, knob in parameters(part).items() if knob.kind is Parameter.KEYWORD_ONLY}
    return group, {"_target_": target, **knobs, **sizes.knobs}


def infer_sizes(form: Format, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Sizes:
    """Sizes of a part, no larger than the tensors can be: names and metadata can claim any.

    Raises:
        WeightsError: names, shapes and metadata do not agree.
    """
    try:
        sizes = form.infer({name: value.shape for name, value in tensors.items()}, metadata)
    except (ArithmeticError, LookupError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise WeightsError(
            f"the sizes of a {form.part_name} ({form.name}) are not in these tensors: {reason}; fetch them again"
        ) from error
    largest = max(max(value.shape, default=0) for value in tensors.values())
    bounds = {"depth": len(tensors)}
    for name, value in sizes.knobs.items():
        if isinstance(value, int) and not 0 <= value <= (most := bounds.get(name, max(largest, len(tensors)))):
            raise WeightsError(
                f"these names and metadata claim {name}={value}, and the tensors allow {most} at most; fetch them again"
            )
    return sizes
