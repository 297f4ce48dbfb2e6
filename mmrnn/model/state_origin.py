"""Origin of the states of a model: its backbone, scan and hook."""

import json
from dataclasses import replace
from hashlib import sha256

import torch
from torch import nn

from mmrnn.types import Backbone, Layout, Scan, StateOrigin


def state_origin(backbone: Backbone, scan: Scan | None, hook: nn.Module | None) -> StateOrigin | None:
    """Return the origin of the states of a model; None: its backbone does not say its own."""
    if backbone.state_origin is None:
        return None
    return replace(backbone.state_origin, scan=scan_fingerprint(scan, backbone.depth), hook=hook_fingerprint(hook))


def scan_fingerprint(scan: Scan | None, depth: int) -> str:
    """Return `forward`, or a fingerprint of the orders in which `depth` layers read an image."""
    layout = Layout(rows=3, cols=5)
    with torch.device("cpu"):  # models are built on the meta device, too
        orders = [None if scan is None else scan(layer, layout) for layer in range(depth)]
    if all(order is None for order in orders):
        return "forward"
    plain = [None if order is None else order.tolist() for order in orders]
    return sha256(json.dumps(plain).encode()).hexdigest()[:16]


def hook_fingerprint(hook: nn.Module | None) -> str:
    """Return `none`, or a fingerprint of the names and shapes of a hook's parameters."""
    if hook is None:
        return "none"
    shapes = {name: list(parameter.shape) for name, parameter in hook.named_parameters()}
    return sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()[:16]
