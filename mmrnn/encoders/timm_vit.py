"""Vision transformers of timm: CLIP, EVA, SigLIP, DINOv2, SAM and all others with patches and blocks."""

from collections.abc import Mapping
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from mmrnn.encoders.timm_factory import create_trunk, image_spec
from mmrnn.encoders.tower import Cls, PosInterp, Recompute, Resize, Tower, TrunkDtype, num_blocks
from mmrnn.types import FiniteFloat, PositiveFloat, PositiveInt


class TimmViT(Tower):
    """Vision transformer of timm, truncated behind block `layer`.

    Later blocks, the head, and the final norm unless `norm` is set are removed, so that every parameter is used. In SAM
    the final norm is the neck, with an output width of 256.

    The weights of OpenAI need a name with `quickgelu` or `act="quick_gelu"`. SigLIP as in Hugging Face needs
    `act="gelu_tanh"`; timm has the exact GELU.

    Args:
        name: model name in timm, with or without the tag of a set of weights.
        size: height and width of the images; None: as published.
        layer: block whose output is emitted, -1: the last, -2: the one before.
        norm: apply the final norm.
        act: activation; None: that of the model.
        depth: number of blocks; None: that of the model.
        pos_interp: resampling of the position table when weights for another grid are loaded: `antialias` (timm) or
            `plain` (LAVIS, Qwen-VL).
        dynamic: accept images of other sizes, with the position table resampled in every forward pass.
        mean: of the pixels; None: as published.
        std: of the pixels; None: as published.
        arch: other sizes of the model, with timm's names (`embed_dim`, `num_heads`, ...).
        pretrained: tag of the published weights; True: those of the name. The constructor loads nothing;
            `mmrnn.weights.pretrained` does.

    Raises:
        ValueError: timm has no such model or size, the model has no such block or class token, or a choice is unknown.
    """

    def __init__(
        self,
        *,
        name: str = "vit_large_patch14_clip_quickgelu_336",
        size: PositiveInt | None = None,
        layer: int = -2,
        cls: Cls = "drop",
        norm: bool = False,
        extra_norm: bool | PositiveFloat = False,
        act: str | None = None,
        depth: PositiveInt | None = None,
        pos_interp: PosInterp = "antialias",
        dynamic: bool = False,
        resize: Resize = "pad",
        mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] | None = None,
        std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None,
        dtype: TrunkDtype | None = None,
        grad_checkpointing: Recompute = 0,
        prepack_weights: bool = False,
        arch: Mapping[str, Any] | None = None,
        pretrained: bool | str | None = None,
    ):
        if pos_interp not in ("antialias", "plain"):
            raise ValueError(f"pos_interp ({pos_interp!r}) must be antialias or plain")
        if dynamic and pos_interp == "plain":
            raise ValueError(
                "pos_interp (plain) excludes dynamic: timm resamples with antialias; set pos_interp=antialias"
            )
        sizes = {"img_size": size, "depth": depth, "act_layer": act, "dynamic_img_size": dynamic or None}
        trunk = create_trunk(name, pretrained, {**(arch or {}), "global_pool": "", **_without_none(sizes)})
        if not (hasattr(trunk, "patch_embed") and hasattr(trunk, "blocks")):
            raise ValueError(f"{name} has no patches and blocks; for its feature maps use TimmFeatures")
        trunk.prune_intermediate_layers([num_blocks(layer, len(trunk.blocks)) - 1], prune_norm=not norm)
        super().__init__(
            trunk,
            width=trunk.num_features if norm else trunk.embed_dim,
            stride=trunk.patch_embed.patch_size[0],
            image=image_spec(trunk, trunk.patch_embed.img_size, mean, std, resize),
            has_cls=getattr(trunk, "cls_token", None) is not None,
            cls=cls,
            extra_norm=extra_norm,
            dtype=dtype,
            grad_checkpointing=grad_checkpointing,
            prepack_weights=prepack_weights,
            dynamic=dynamic,
        )
        self.pos_interp = pos_interp
        self.pretrained = pretrained

    def forward_trunk(
        self, images: Float[Tensor, "m c H W"]
    ) -> tuple[Float[Tensor, "m 1 e"] | None, Float[Tensor, "m p e"]]:
        """Compute the class token, if any, and the row-major patches."""
        tokens = self.trunk.forward_features(images)
        if tokens.ndim == 4:
            return None, rearrange(tokens, "m e rows cols -> m (rows cols) e")
        patches = tokens[:, self.trunk.num_prefix_tokens :]
        return None if self.cls == "drop" else tokens[:, :1], patches


def _without_none(knobs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in knobs.items() if value is not None}
