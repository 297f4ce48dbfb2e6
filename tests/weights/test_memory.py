"""Loading needs no more memory than the model and one file of it: measured on 2 GB, in a process of its own."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from mmrnn.backbones import Transformer
from mmrnn.weights.export import export

pytestmark = pytest.mark.slow

SIZES = {"vocab": 20_000, "width": 2048, "depth": 20, "heads": 16, "ffn": 5632}
"""1.02 billion parameters, 2.04 GB in bf16."""

MEASURE = """
import json, sys
import torch
from mmrnn.backbones import Transformer
from mmrnn.io.process_memory import peak_resident_bytes, resident_bytes
from mmrnn.weights import load

source, dtype, place, sizes = sys.argv[1], getattr(torch, sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
torch.set_num_threads(1)
with torch.device("meta"):
    model = Transformer(**sizes).to(dtype)
if place == "cpu":
    model.to_empty(device="cpu")
    for value in model.parameters():
        value.data.zero_()
base = resident_bytes()
if place == "cpu":
    base -= sum(value.nbytes for value in model.parameters())
load(model, source)
total = sum(float(value.float().sum()) for value in model.parameters())
peak = peak_resident_bytes() - base
print(json.dumps({"peak": peak, "model": sum(v.nbytes for v in model.parameters()), "sum": total}))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in export(Transformer(**SIZES), "llama").items()}
    names, places = list(shapes), {}
    for number in range(4):
        group = names[number * len(names) // 4 : (number + 1) * len(names) // 4]
        file = f"model-{number + 1:05}-of-00004.safetensors"
        save_file({name: torch.ones(shapes[name], dtype=torch.bfloat16) for name in group}, str(folder / file))
        places |= dict.fromkeys(group, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    whole = folder / "whole.pth"
    torch.save({name: torch.ones(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}, whole)
    yield (
        {"shards": folder / "model.safetensors.index.json", "one file": whole},
        sum(s.numel() for s in shapes.values()),
    )
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("source", ["shards", "one file"])
@pytest.mark.parametrize(("dtype", "place"), [("bfloat16", "meta"), ("float32", "meta"), ("bfloat16", "cpu")])
def test_peak(files, source, dtype, place):
    paths, count = files
    path = paths[source]
    one = [path] if path.suffix == ".pth" else list(path.parent.glob("*.safetensors"))
    shard = max(file.stat().st_size for file in one)
    assert sum(file.stat().st_size for file in one) > 2e9
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEASURE, str(path), dtype, place, json.dumps(SIZES)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(f"{source} {dtype} {place}: peak {found['peak'] / 1e9:.2f} GB, model {found['model'] / 1e9:.2f} GB")
    assert found["sum"] == count
    # A tenth of a shard for what loading itself allocates.
    assert found["peak"] <= found["model"] + 1.1 * shard
