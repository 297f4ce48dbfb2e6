"""Front of the WKV operators: shape checks, then the choice of the backend."""

from torch import Tensor

from ..dispatch import Operator
from .checks import check_shapes


class WKVOperator:
    """Calls of an `Operator` whose implementations take `(*inputs, state, cu_seqlens)`.

    Args:
        axes: letters of every input before the state, in the order of the arguments: `r="b t h k"`.
    """

    def __init__(self, operator: Operator, **axes: str):
        self.operator, self.axes = operator, axes

    def __call__(self, backend: str, cu_seqlens: Tensor | None, *inputs: Tensor | None) -> tuple[Tensor, Tensor]:
        """Check the shapes of the inputs (the last is the state) and run `backend`.

        Raises:
            ValueError: sizes do not agree, cu_seqlens does not fit, or there is no such backend.
            RuntimeError: the backend cannot run on these inputs.
        """
        state = f"{'b' if cu_seqlens is None else 'n'} h k v"
        axes = {**self.axes, "state": state}
        check_shapes(
            self.operator.name, **{name: (letters, x) for (name, letters), x in zip(axes.items(), inputs, strict=True)}
        )
        return self.operator(backend, *inputs, cu_seqlens)
