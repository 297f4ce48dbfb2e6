"""Vision transformers of timm: CLIP, EVA, SigLIP, DINOv2, SAM and every other one that has patches and blocks."""

from collections.abc import Mapping
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from mmrnn.encoders.timm_factory import build, image_spec
from mmrnn.encoders.tower import Cls, PosInterp, Resize, Tower, kept_blocks


class TimmViT(Tower):
    """A vision transformer of timm by name, cut off behind the block that is asked for.

    The blocks behind `layer`, the head, and the final norm where it is not asked for are left out, so that every
    parameter is used. In SAM the final norm is the neck, which makes the tokens 256 wide.

    Weights of OpenAI need a name with `quickgelu` in it or `act="quick_gelu"`; SigLIP as Hugging Face runs it needs
    `act="gelu_tanh"` (timm alone takes the exact GELU).

    Args:
        name: of timm's list, with or without the tag of a set of weights.
        size: height and width of the images; None: what the model was published for.
        layer: whose output is taken: -1 the last block, -2 the one before.
        norm: the model's own final norm follows.
        depth: number of blocks, where it is not that of the name.
        pos_interp: how a position table for another grid is resampled when it is loaded: bicubic with antialias
            (timm) or `plain` (LAVIS, Qwen-VL).
        dynamic: images of other sizes can be read, the position table being resampled each time.
        mean, std: of the pixels; None: what the model was published with.
        arch: sizes that differ from those of the name, as timm calls them (`embed_dim`, `num_heads`, ...).
        pretrained: tag of the weights that `fetch` shall load, True for those of the name. Nothing is loaded here.

    Raises:
        ValueError: no such model, block, class token or choice.
    """

    def __init__(
        self,
        *,
        name: str = "vit_large_patch14_clip_quickgelu_336",
        size: int | None = None,
        layer: int = -2,
        cls: Cls = "drop",
        norm: bool = False,
        extra_norm: bool | float = False,
        act: str | None = None,
        depth: int | None = None,
        pos_interp: PosInterp = "antialias",
        dynamic: bool = False,
        resize: Resize = "pad",
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        dtype: str | None = None,
        prepack_weights: bool = False,
        arch: Mapping[str, Any] | None = None,
        pretrained: bool | str | None = None,
    ):
        if pos_interp not in ("antialias", "plain"):
            raise ValueError(f"pos_interp ({pos_interp!r}) must be antialias or plain")
        if dynamic and pos_interp == "plain":
            raise ValueError("pos_interp (plain) cannot be had with dynamic sizes, which timm resamples antialiased")
        sizes = {"img_size": size, "depth": depth, "act_layer": act, "dynamic_img_size": dynamic or None}
        trunk = build(name, pretrained, {**(arch or {}), "global_pool": "", **_given(sizes)})
        if not (hasattr(trunk, "patch_embed") and hasattr(trunk, "blocks")):
            raise ValueError(f"{name} has no patches and blocks; for its feature maps use TimmFeatures")
        trunk.prune_intermediate_layers([kept_blocks(layer, len(trunk.blocks)) - 1], prune_norm=not norm)
        super().__init__(
            trunk,
            width=trunk.num_features if norm else trunk.embed_dim,
            stride=trunk.patch_embed.patch_size[0],
            image=image_spec(trunk, trunk.patch_embed.img_size, mean, std, resize),
            has_cls=getattr(trunk, "cls_token", None) is not None,
            cls=cls,
            extra_norm=extra_norm,
            dtype=dtype,
            prepack_weights=prepack_weights,
            dynamic=dynamic,
        )
        self.pos_interp = pos_interp
        self.pretrained = pretrained

    def forward_trunk(
        self, images: Float[Tensor, "m c H W"]
    ) -> tuple[Float[Tensor, "m 1 e"] | None, Float[Tensor, "m p e"]]:
        tokens = self.trunk.forward_features(images)
        if tokens.ndim == 4:
            return None, rearrange(tokens, "m e rows cols -> m (rows cols) e")
        patches = tokens[:, self.trunk.num_prefix_tokens :]
        return None if self.cls == "drop" else tokens[:, :1], patches


def _given(knobs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in knobs.items() if value is not None}
