"""Choice of the implementation of an operator."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .transforms import is_transformed

OPAQUE = 'vmap, jvp, forward-mode AD and the like do not see through it; take backend="reference"'


@dataclass(frozen=True)
class Operator:
    """An operator and its implementations, fastest first.

    `reference` is made of operators of torch, the others are custom ops, whose formula no transform of torch sees.
    `unavailable[name]` takes the inputs and returns the reason why that implementation cannot run on them, or None.
    `auto` takes the first implementation without such a reason; one that is asked for by name runs or raises.
    """

    name: str
    implementations: Mapping[str, Callable[..., Any]]
    unavailable: Mapping[str, Callable[..., str | None]] = field(default_factory=dict)

    def __call__(self, backend: str, *inputs: Any) -> Any:
        """Run `backend` on the inputs.

        Raises:
            ValueError: there is no such backend.
            RuntimeError: the backend, or with `auto` every backend, cannot run on these inputs.
        """
        if backend != "auto" and backend not in self.implementations:
            choices = ["auto", *self.implementations]
            raise ValueError(f"{self.name}: backend must be one of {choices}, got {backend!r}")
        reasons = []
        for name in self.implementations if backend == "auto" else [backend]:
            reason = self.unavailable_reason(name, *inputs)
            if reason is None:
                return self.implementations[name](*inputs)
            reasons.append(f"backend {name!r} cannot run here: {reason}")
        raise RuntimeError(f"{self.name}: " + "; ".join(reasons))

    def unavailable_reason(self, name: str, *inputs: Any) -> str | None:
        """Return why an implementation cannot run on the inputs, or None."""
        if is_transformed() and self.implementations[name] is not self.implementations["reference"]:
            return OPAQUE
        return self.unavailable[name](*inputs) if name in self.unavailable else None
