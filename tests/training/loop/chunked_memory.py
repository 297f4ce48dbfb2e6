"""A program: peak memory in MiB of training on rows of 2,048, 8,192 and 65,536 tokens, in pieces of 1,024."""

import json

import torch

from mmrnn.backbones import RWKV6
from mmrnn.io.process_memory import peak_resident_bytes
from mmrnn.model.vlm import VLM
from mmrnn.training import AdamW, Cosine, LanguageModel, Stage
from mmrnn.training.loop.ready import Ready
from mmrnn.training.loop.stepper import Stepper
from mmrnn.training.optim.param_groups import param_groups
from mmrnn.training.step import TrainStep
from mmrnn.types import Batch, Sequence


def stepper(model: VLM, objective: LanguageModel, train_chunk: int) -> Stepper:
    groups = param_groups(model, lr_mult={}, layer_lr_decay={})
    return Stepper(
        step=TrainStep(model, objective),
        stage=Stage(train=("backbone",), steps=1, max_grad_norm=0.0),
        optimizer=AdamW(groups, 1e-3),
        schedule=Cosine(),
        precision="fp32",
        train_chunk=train_chunk,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = VLM(RWKV6(vocab=256, width=64, depth=2, head_size=16), {})
    found = {"peaks": [], "losses": []}
    for length, train_chunk in ((2048, 1024), (8192, 1024), (65536, 1024), (8192, 0)):
        ids = torch.randint(0, 256, (1, length), generator=torch.Generator().manual_seed(length))
        ready = Ready([Batch(Sequence(ids, labels=ids.clone()))], [(1.0,)], [], [])
        found["losses"].append(stepper(model, LanguageModel(), train_chunk).attempt(ready)[0])
        found["peaks"].append(peak_resident_bytes() / 2**20)
        model.zero_grad()
    print(json.dumps(found))
