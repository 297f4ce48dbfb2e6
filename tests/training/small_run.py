"""A small run: its overrides, its configuration and its weights."""

from safetensors.torch import load_file

from mmrnn.config.compose import compose
from mmrnn.config.tree import plain

SMALL = (
    "model=visualrwkv6_tiny",
    "encoder=patch_tiny",
    "data.scenes=12",
    "data.rounds=4",
    "stage.instruct.steps=6",
    "stage.instruct.batch_size=4",
    "backbone.dropout=0.1",
    "evaluate.samples=9",
    "evaluate.every=3",
    "evaluate.max_new_tokens=4",
    "log_every=1",
)


def config(*overrides):
    return plain(compose(*SMALL, *overrides))


def weights_of(folder):
    return load_file(str(folder / "model.safetensors"))
