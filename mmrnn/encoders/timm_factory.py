"""Models of timm by name, and the image specification that they were published with."""

from collections.abc import Mapping
from difflib import get_close_matches
from inspect import signature
from typing import Any

from torch import nn

from mmrnn.encoders.arch import check_arch
from mmrnn.encoders.tower import Resize
from mmrnn.types import ImageSpec


def create_trunk(name: str, pretrained: bool | str | None, options: Mapping[str, Any]) -> nn.Module:
    """Create a model of timm without a head and with random weights.

    Args:
        pretrained: tag whose published configuration the model has; nothing is downloaded.
        options: keyword arguments of the model: sizes and choices.

    Raises:
        ValueError: timm has no such model, tag or option, or an option is one of loading.
    """
    import timm

    if ":" in name:
        raise ValueError(f"name ({name!r}) must be in timm.list_models(): no model is downloaded to build another")
    check_arch("timm", options, refused=signature(timm.create_model).parameters)
    full = f"{name}.{pretrained}" if isinstance(pretrained, str) and pretrained != "package" else name
    try:
        return timm.create_model(full, pretrained=False, num_classes=0, **options)
    except (RuntimeError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError) as fault:
        known = timm.list_models() if full == name else timm.list_pretrained(f"{name}.*")
        if isinstance(fault, RuntimeError) and full not in known:
            near = ", ".join(get_close_matches(full, known)) or "see timm.list_models()"
            raise ValueError(f"timm has no model {full!r}; near to it: {near}") from fault
        reason = f"{type(fault).__name__}: {fault}"
        raise ValueError(f"timm cannot build {name} with {', '.join(options)}: {reason}") from fault


def image_spec(
    trunk: nn.Module,
    size: tuple[int, int],
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
    resize: Resize,
) -> ImageSpec:
    """Image specification of a trunk; `mean` and `std` None: as published."""
    published = trunk.pretrained_cfg
    interpolation = published["interpolation"]
    return ImageSpec(
        size=(size[0], size[1]),
        mean=tuple(mean or published["mean"]),
        std=tuple(std or published["std"]),
        resize=resize,
        interpolation=interpolation if interpolation in ("bilinear", "bicubic") else "bicubic",
    )
