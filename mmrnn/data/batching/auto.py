"""The batching that suits a run."""

from collections.abc import Iterator

from mmrnn.data.batching.bucketed import Bucketed
from mmrnn.data.batching.packed import Packed, one_sample_a_row
from mmrnn.data.batching.plain import Plain
from mmrnn.types import Backbone, Batching, MapDataset, Objective, PositiveInt, StepPlan, StepSpec


class Auto(Batching):
    """`Packed` for recurrent backbones, whose cost does not depend on the length of a row; else `Bucketed`.

    Where samples are generated: `Plain`. They would have to be made for their lengths alone.

    Args:
        tokens: of `Packed`.
        window: of `Bucketed`.
    """

    def __init__(self, *, tokens: PositiveInt = 16384, window: PositiveInt = 64) -> None:
        self.packed, self.bucketed = Packed(tokens=tokens), Bucketed(window=window)

    def resolve(self, backbone: Backbone, objective: Objective, data: MapDataset, ranks: int) -> Batching:
        """Return the batching for a run."""
        if data.generated:
            return Plain()
        packs = backbone.recurrent and not one_sample_a_row(backbone, objective)
        return self.packed if packs else self.bucketed

    def plans(self, position: int, spec: StepSpec) -> Iterator[StepPlan]:
        """Refuse: the parts of the run are not known.

        Raises:
            TypeError: always.
        """
        raise TypeError("this batching depends on the parts of the run; use the one that its `resolve` returns")
