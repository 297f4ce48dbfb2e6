"""Imports are light: a borrower of one connector needs only torch."""

import os
import subprocess
import sys

BLOCKED = ("hydra", "omegaconf", "triton", "transformers", "timm", "open_clip", "rich", "PIL", "huggingface_hub")

BLOCK = f"""
import sys
sys.modules.update(dict.fromkeys({BLOCKED!r}))  # as if not installed
"""

EVERY_PART = """
import importlib, pkgutil
import mmrnn, mmrnn.model.vlm, mmrnn.inference.generate, mmrnn.model.splice, mmrnn.types
import mmrnn.encoders, mmrnn.connectors, mmrnn.backbones, mmrnn_kernels
for room in (mmrnn.encoders, mmrnn.connectors, mmrnn.backbones):
    assert room.__all__, room.__name__
    for name in room.__all__:
        getattr(room, name)
    for module in pkgutil.walk_packages(room.__path__, room.__name__ + "."):
        importlib.import_module(module.name)
"""

ALONE = """
import mmrnn
heavy = sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "numpy", "yaml", "difflib"})
assert not heavy, heavy
assert "compose" in dir(mmrnn)
"""

HELP = """
from mmrnn.cli.main import main
assert main(["--help"]) == 0 and main(["list"]) == 0
heavy = sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "numpy"})
assert not heavy, heavy
"""

META = """
import sys, torch
import mmrnn
configs = [mmrnn.compose("model=eve_tiny"), mmrnn.compose("model=eve_tiny", "backbone=rwkv6_tiny")]
with torch.device("meta"):
    models = [mmrnn.build(config) for config in configs]
assert all(parameter.is_meta for model in models for parameter in model.parameters())
assert "torch._dynamo" not in sys.modules
"""


def run(code: str, block: str = BLOCK) -> None:
    # A checkout is on the path of these tests without being installed.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", block + code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_part_imports_with_torch_alone():
    run(EVERY_PART)


def test_the_package_alone_imports_not_even_torch():
    run(ALONE)


def test_help_and_the_list_of_cards_need_neither_torch_nor_hydra():
    run(HELP)


def test_a_build_on_the_meta_device_does_not_import_the_compiler():
    run(META, block="")
