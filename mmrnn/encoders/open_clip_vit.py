"""Vision towers implemented by open_clip."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.encoders.arch import check_arch
from mmrnn.encoders.tower import Cls, PosInterp, Recompute, Resize, Tower, TrunkDtype, num_blocks
from mmrnn.types import FiniteFloat, ImageSpec, PositiveFloat, PositiveInt


class OpenCLIPViT(Tower):
    """CLIP vision tower of open_clip, truncated behind block `layer`.

    Later blocks, the projection, and the final norm unless `norm` is set are removed, so that every parameter is used.
    For the towers that open_clip itself takes from timm (EVA, SigLIP) there is `TimmViT`.

    Args:
        name: model name in open_clip; the weights of OpenAI need one that ends in `-quickgelu`.
        size: height and width of the images; None: as published.
        layer: block whose output is emitted, -1: the last, -2: the one before.
        norm: apply the final norm.
        act: activation; None: that of the model.
        depth: number of blocks; None: that of the model.
        pos_interp: resampling of the position table when weights for another grid are loaded.
        mean: of the pixels; None: that of CLIP.
        std: of the pixels; None: that of CLIP.
        arch: other sizes of the model, with open_clip's names (`width`, `head_width`, ...).
        pretrained: tag of the published weights. The constructor loads nothing; `mmrnn.weights.pretrained` does.

    Raises:
        ValueError: open_clip has no such model or size, the model has no such block, or a choice is unknown.
    """

    def __init__(
        self,
        *,
        name: str = "ViT-L-14-336-quickgelu",
        size: PositiveInt | None = None,
        layer: int = -2,
        cls: Cls = "drop",
        norm: bool = False,
        extra_norm: bool | PositiveFloat = False,
        act: Literal["quick_gelu", "gelu"] | None = None,
        depth: PositiveInt | None = None,
        pos_interp: PosInterp = "antialias",
        resize: Resize = "pad",
        mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] | None = None,
        std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None,
        dtype: TrunkDtype | None = None,
        grad_checkpointing: Recompute = 0,
        prepack_weights: bool = False,
        arch: Mapping[str, Any] | None = None,
        pretrained: str | None = None,
    ):
        if pos_interp not in ("antialias", "plain"):
            raise ValueError(f"pos_interp ({pos_interp!r}) must be antialias or plain")
        check_arch("open_clip", arch or {}, refused=())
        config = _config(name)
        quick = config.get("quick_gelu", False) if act is None else act == "quick_gelu"
        if pretrained == "openai" and not quick:
            raise ValueError(f"the weights of OpenAI need QuickGELU: take {name}-quickgelu or act=quick_gelu")
        sizes = {**config["vision_cfg"], **(arch or {})}
        sizes |= {key: value for key, value in (("image_size", size), ("layers", depth)) if value is not None}
        trunk = _build(config["embed_dim"], sizes, quick)
        trunk.prune_intermediate_layers([num_blocks(layer, len(trunk.transformer.resblocks)) - 1], prune_norm=not norm)
        from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

        super().__init__(
            trunk,
            width=trunk.conv1.out_channels,
            stride=trunk.patch_size[0],
            image=ImageSpec(
                size=(trunk.image_size[0], trunk.image_size[1]),
                mean=tuple(mean or OPENAI_DATASET_MEAN),
                std=tuple(std or OPENAI_DATASET_STD),
                resize=resize,
            ),
            has_cls=True,
            cls=cls,
            extra_norm=extra_norm,
            dtype=dtype,
            grad_checkpointing=grad_checkpointing,
            prepack_weights=prepack_weights,
        )
        self.name = name
        self.norm = norm
        self.pos_interp = pos_interp
        self.pretrained = pretrained

    def forward_trunk(
        self, images: Float[Tensor, "m c H W"]
    ) -> tuple[Float[Tensor, "m 1 e"] | None, Float[Tensor, "m p e"]]:
        """Compute the class token, if any, and the row-major patches."""
        found = self.trunk.forward_intermediates(
            images,
            indices=1,
            normalize_intermediates=self.norm,
            intermediates_only=True,
            output_fmt="NLC",
            output_extra_tokens=True,
        )
        return found["image_intermediates_prefix"][0], found["image_intermediates"][0]


def _config(name: str) -> dict[str, Any]:
    import open_clip

    config = open_clip.get_model_config(name)
    if config is None:
        near = ", ".join(get_close_matches(name, open_clip.list_models())) or "see open_clip.list_models()"
        raise ValueError(f"open_clip has no model {name!r}; near to it: {near}")
    vision = config["vision_cfg"]
    if timm_name := vision.get("timm_model_name"):
        raise ValueError(f"the image tower of {name} is {timm_name} of timm; take TimmViT with that name")
    if not isinstance(vision["layers"], int):
        raise ValueError(f"the image tower of {name} is a ResNet, which has no patches and blocks; take a ViT")
    return config


def _build(embed_dim: int, sizes: Mapping[str, Any], quick: bool) -> nn.Module:
    # The only builder of open_clip for a vision tower alone; it also works on the meta device.
    from open_clip.model import _build_vision_tower

    try:
        return _build_vision_tower(embed_dim, dict(sizes), quick)
    except TypeError as fault:
        raise ValueError(f"open_clip cannot build a tower with {', '.join(sizes)}: {fault}") from fault
