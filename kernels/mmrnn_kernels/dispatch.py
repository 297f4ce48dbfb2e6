"""One operator, several implementations: which one runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Op:
    """An operator and its implementations, fastest first.

    `blocked[name]` is called with the inputs and says why that implementation cannot run on them, or None.
    `auto` takes the first that nothing blocks; one that is asked for by name runs or raises, it is never replaced.
    """

    name: str
    impls: Mapping[str, Callable[..., Any]]
    blocked: Mapping[str, Callable[..., str | None]] = field(default_factory=dict)

    def __call__(self, backend: str, *inputs: Any) -> Any:
        """Run `backend` on the inputs.

        Raises:
            ValueError: there is no such backend.
            RuntimeError: it cannot run on these inputs, or with `auto` none can.
        """
        if backend != "auto" and backend not in self.impls:
            choices = ["auto", *self.impls]
            raise ValueError(f"{self.name}: backend must be one of {choices}, got {backend!r}")
        reasons = []
        for name in self.impls if backend == "auto" else [backend]:
            reason = self.blocked[name](*inputs) if name in self.blocked else None
            if reason is None:
                return self.impls[name](*inputs)
            reasons.append(f"backend {name!r} cannot run here: {reason}")
        raise RuntimeError(f"{self.name}: " + "; ".join(reasons))
