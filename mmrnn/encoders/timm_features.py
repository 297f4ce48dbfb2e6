"""Feature maps of the convolutional networks of timm, as grids of tokens."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from mmrnn.encoders.timm_factory import create_trunk, image_spec
from mmrnn.encoders.tower import Resize, Tower, TrunkDtype
from mmrnn.types import FiniteFloat, PositiveFloat, PositiveInt


class TimmFeatures(Tower):
    """Feature maps of a network of timm; several are concatenated on the channels.

    The maps are timm's stages, followed by the last map, which in some networks is wider than the last stage:
    EfficientNet-Lite0 has the stages 0 to 4 (16, 24, 40, 112, 320 channels at strides 2, 4, 8, 16, 32) and a last map
    of 1280 channels at stride 32. Layers behind the maps are removed.

    The sides of an image may be any multiples of the stride. Batch norms without gradients keep their statistics in
    training mode too.

    Args:
        name: model name in timm.
        size: height and width of the images; None: as published.
        layer: index or indices of the maps, -1: the last map, -2: the last stage, 0: the first stage.
        join: reduction of finer maps to the coarsest grid: `unshuffle` (space-to-depth) or `pool` (mean).
        mean: of the pixels; None: as published.
        std: of the pixels; None: as published.
        arch: other options of the model, with timm's names.
        pretrained: tag of the published weights; True: those of the name; `package`: those of the installed package of
            EfficientNet-Lite0. The constructor loads nothing; `mmrnn.weights.pretrained` does.

    Raises:
        ValueError: timm has no such model, the model has no such map, the size is no multiple of the stride, or a
            choice is unknown.
    """

    def __init__(
        self,
        *,
        name: str = "tf_efficientnet_lite0",
        size: PositiveInt | None = None,
        layer: int | Sequence[int] = -1,
        join: Literal["unshuffle", "pool"] = "unshuffle",
        resize: Resize = "squash",
        mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] | None = None,
        std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None,
        dtype: TrunkDtype | None = None,
        arch: Mapping[str, Any] | None = None,
        pretrained: bool | str | None = None,
    ):
        if join not in ("unshuffle", "pool"):
            raise ValueError(f"join ({join!r}) must be unshuffle or pool")
        trunk = create_trunk(name, pretrained, arch or {})
        if hasattr(trunk, "patch_embed") or not hasattr(trunk, "forward_intermediates"):
            raise ValueError(f"{name} has no feature maps; for a transformer use TimmViT")
        stages = [(stage["num_chs"], stage["reduction"]) for stage in trunk.feature_info]
        maps = [*stages, (trunk.num_features, stages[-1][1])]
        chosen = _chosen(layer, len(maps))
        stride = max(maps[index][1] for index in chosen)
        factors = [stride // maps[index][1] for index in chosen]
        for end in ("head", "fc", "classifier"):
            if hasattr(trunk, end):
                setattr(trunk, end, nn.Identity())
        before = set(trunk.state_dict())
        if max(chosen) < len(stages):
            trunk.prune_intermediate_layers([max(chosen)], prune_norm=True)
        published = trunk.pretrained_cfg["input_size"]
        super().__init__(
            # Convolutions on a CPU are up to twice as fast in channels-last format.
            trunk.to(memory_format=torch.channels_last),
            width=sum(
                maps[index][0] * (factor**2 if join == "unshuffle" else 1)
                for index, factor in zip(chosen, factors, strict=True)
            ),
            stride=stride,
            image=image_spec(trunk, (size or published[1], size or published[2]), mean, std, resize),
            dtype=dtype,
            dynamic=True,
        )
        self.layout(*self.image.size)
        self.stages = len(stages)
        self.chosen = chosen
        self.factors = factors
        self.join = join
        self.unused = frozenset(before - set(trunk.state_dict()))
        self.pretrained = pretrained

    def forward_trunk(self, images: Float[Tensor, "m c H W"]) -> tuple[None, Float[Tensor, "m p e"]]:
        """Compute the maps as row-major patches; there is no class token."""
        maps = self._maps(images.contiguous(memory_format=torch.channels_last))
        joined = torch.cat(
            [self._coarsen(maps[index], factor) for index, factor in zip(self.chosen, self.factors, strict=True)],
            dim=1,
        )
        return None, rearrange(joined, "m e rows cols -> m (rows cols) e")

    def _maps(self, images: Tensor) -> dict[int, Tensor]:
        if self.chosen == [self.stages]:
            return {self.stages: self.trunk.forward_features(images)}
        stages = sorted({index for index in self.chosen if index < self.stages})
        if self.stages not in self.chosen:
            found = self.trunk.forward_intermediates(images, indices=stages, stop_early=True, intermediates_only=True)
            return dict(zip(stages, found, strict=True))
        last, found = self.trunk.forward_intermediates(images, indices=stages)
        return {**dict(zip(stages, found, strict=True)), self.stages: last}

    def _coarsen(self, features: Tensor, factor: int) -> Tensor:
        if factor == 1:
            return features
        return F.pixel_unshuffle(features, factor) if self.join == "unshuffle" else F.avg_pool2d(features, factor)

    def train(self, mode: bool = True) -> "TimmFeatures":
        """Set the mode, but leave batch norms without gradients in evaluation mode."""
        super().train(mode)
        for part in self.modules():
            if isinstance(part, _BatchNorm) and not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        return self


def _chosen(layer: int | Sequence[int], count: int) -> list[int]:
    layers = [layer] if isinstance(layer, int) else list(layer)
    for index in layers:
        if not -count <= index < count:
            raise ValueError(f"layer ({index}) must lie between {-count} and {count - 1}: there are {count} maps")
    if not layers:
        raise ValueError("layer must name a map; it is empty")
    return [index % count for index in layers]
