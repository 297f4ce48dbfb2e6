"""Front of the WKV operators: shape checks, then the choice of the backend."""

from torch import Tensor

from ..dispatch import Operator
from .checks import INDEX_DTYPES, check_dtypes, check_shapes, present
from .segments import edges_of


class WKVOperator:
    """Calls of an `Operator` whose implementations take `(*inputs, state, cu_seqlens)`.

    Args:
        state_axes: letters of the state of one sample.
        axes: letters of every input before the state, in the order of the arguments: `r="b t h k"`.
    """

    def __init__(self, operator: Operator, state_axes: str = "h k v", /, **axes: str):
        self.operator, self.state_axes, self.axes = operator, state_axes, axes

    def __call__(self, backend: str, cu_seqlens: object, *inputs: object) -> tuple[Tensor, Tensor]:
        """Check the types and shapes of the inputs (the last is the state) and run `backend`.

        Raises:
            TypeError: an input is no tensor, or of a type that the operators do not take.
            ValueError: sizes do not agree, cu_seqlens does not fit, or there is no such backend.
            RuntimeError: the backend cannot run on these inputs.
        """
        op, (*required, state), edges = self.operator.name, inputs, edges_of(cu_seqlens)
        named = dict(zip(self.axes, required, strict=True))
        check_dtypes(op, **named, **present(state=state))
        check_dtypes(op, INDEX_DTYPES, **present(cu_seqlens=edges))
        check_shapes(
            op,
            **{name: (self.axes[name], x) for name, x in named.items()},
            state=(f"{'b' if cu_seqlens is None else 'n'} {self.state_axes}", state),
            cu_seqlens=("edges", edges),
        )
        return self.operator(backend, *inputs, cu_seqlens)
