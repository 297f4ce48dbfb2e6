"""Time and memory of a model on a GPU, computed from bytes, FLOPs and the data sheet: nothing is measured.

A time is the larger of bytes over bandwidth and FLOPs over the peak (roofline: Williams et al., 2009), a bound that no
program undercuts. FLOPs: 2 per weight and position (Kaplan et al., 2020), 4 per value of the queries and earlier
position in attention, 2 per multiply-add of a recurrence. Weights, keys and values take 2 bytes. Image towers and
activations are left out.
"""

from dataclasses import dataclass

from mmrnn.bench.data_sheets import GPU
from mmrnn.bench.operator import MULTIPLY_ADDS
from mmrnn.model.vlm import VLM

BYTES = 2
"""Of a weight, a key or a value in bf16 or fp16."""


@dataclass(frozen=True)
class ModelCost:
    """Sizes of a model that time and memory follow from.

    Attributes:
        weights: of the whole model.
        read: weights that a token reads: those of the backbone without its embedding.
        head: weights of the head, which a prompt reads once.
        vocab: rows of the head.
        cached: keys and values that a position leaves in the cache, of all layers; 0: an RNN.
        queries: values of the queries of a position, of all layers; 0: an RNN.
        state_bytes: of the state of an RNN.
        recurrence: multiply-adds of the recurrence per position.
    """

    weights: int
    read: int
    head: int
    vocab: int
    cached: int = 0
    queries: int = 0
    state_bytes: int = 0
    recurrence: int = 0

    @classmethod
    def of(cls, model: VLM) -> "ModelCost":
        """Count those of RWKV-5, -6, -7 or of the transformer; the model may be on the meta device.

        Raises:
            ValueError: it is another backbone.
        """
        backbone = model.backbone
        state = backbone.state(1)
        kind = state.origin.kind if state.origin else ""
        operator = kind.replace("rwkv", "wkv")
        if kind != "transformer" and operator not in MULTIPLY_ADDS:
            raise ValueError(f"{type(backbone).__name__}: only RWKV and the transformer have formulas")
        table = backbone.vocab * backbone.width
        sizes = {
            "weights": sum(parameter.numel() for parameter in model.parameters()),
            "read": sum(parameter.numel() for parameter in backbone.parameters()) - table,
            "head": table,
            "vocab": backbone.vocab,
        }
        if backbone.recurrent:
            entries = sum(layer["wkv"].numel() for layer in state.layers)
            return cls(**sizes, state_bytes=state.nbytes, recurrence=MULTIPLY_ADDS[operator] * entries)
        cached = sum(value.shape[1] * value.shape[3] for layer in state.layers for value in layer.values())
        return cls(**sizes, cached=cached, queries=backbone.depth * backbone.width)

    def token_bytes(self, context: int, *, copied: bool = False) -> float:
        """Return the bytes that a token moves after so many positions.

        Args:
            context: positions before.
            copied: the cache is concatenated anew by each token, read and written once more, as by the default cache
                of transformers.
        """
        cache = BYTES * self.cached * context
        return BYTES * self.read + (3 if copied else 1) * cache + 2 * self.state_bytes

    def token_flops(self, context: int) -> float:
        """Return the FLOPs of a token after so many positions."""
        return 2 * self.read + 4 * self.queries * context + 2 * self.recurrence

    def token_seconds(self, gpu: GPU, context: int, *, copied: bool = False) -> float:
        """Return the least time of a token after so many positions; `copied` as of `token_bytes`."""
        return max(self.token_bytes(context, copied=copied) / gpu.bandwidth, self.token_flops(context) / gpu.flops)

    def prompt_flops(self, length: int) -> float:
        """Return the FLOPs of a prompt, whose last position alone goes through the head."""
        attention = 2 * self.queries * length * (length + 1)
        return 2 * length * (self.read - self.head + self.recurrence) + 2 * self.head + attention

    def prompt_seconds(self, gpu: GPU, length: int) -> float:
        """Return the least time of a prompt."""
        return max(self.prompt_flops(length) / gpu.flops, BYTES * self.read / gpu.bandwidth)

    def memory_bytes(self, context: int, *, logits: bool = False) -> float:
        """Return the bytes of weights, and of the cache or the state after so many positions.

        Args:
            context: positions.
            logits: of every position of the prompt are kept, in half precision and in fp32, as by older versions of
                transformers.
        """
        kept = BYTES * (self.weights + self.cached * context) + self.state_bytes
        return kept + (6 * self.vocab * context if logits else 0)
