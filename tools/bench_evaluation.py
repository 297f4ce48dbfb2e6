"""Cost of evaluation: scores of given replies, and a thousand questions about two hundred images.

    python tools/bench_evaluation.py [score] [questions]

`score`: four candidates of RWKV-6 0.1B with 576 image tokens against one reading of the prompt, in pairs.
`questions`: images encoded, padding and seconds at batches of 1, 7 and 64 of a tiny model; the replies are compared.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch
from PIL import Image

from mmrnn import build, compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.data import InMemoryImage
from mmrnn.data.collate import Collator
from mmrnn.data.image import ImageFile
from mmrnn.evaluation.metrics.exact_match import exact_match
from mmrnn.evaluation.tasks import Question, QuestionReader, Task
from mmrnn.evaluation.tasks.answer_lines import ANSWERS
from mmrnn.evaluation.tasks.results import TaskRun
from mmrnn.evaluation.tasks.run_task import run_task
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.generate import prefill
from mmrnn.io import jsonl
from mmrnn.types import Sample, Turn

PAIRS = 9
CANDIDATES = ["yes", "no", "a red square", "three blue circles on the left"]


def make(*overrides: str) -> Assistant:
    """Make a model with random weights."""
    torch.manual_seed(0)
    cfg = plain(compose(*overrides, "out=null"))
    model = build(cfg).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return Assistant(model, instantiate(cfg["tokenizer"]), instantiate(cfg["prompt"]))


def bench_score() -> None:
    """Compare scoring with reading the prompt; the features of the image are computed in both."""
    patches = ("encoder=patch_tiny", "encoder.patch=14", "encoder.size=336")
    assistant = make("model=visualrwkv6_tiny", *patches, "backbone=rwkv6_0b1", "backbone.vocab=1024")
    image = InMemoryImage(Image.linear_gradient("L").resize((336, 336)))
    sample = Sample((Turn("user", "<image>\nwhat is it?"), Turn("assistant", "")), (image,))
    collate = Collator(assistant.tokenizer, assistant.prompt, dict(assistant.model.modalities), for_generation=True)
    print(f"prompt of {collate.length(sample)} positions, {len(CANDIDATES)} candidates, RWKV-6 of 12 layers, width 768")
    reading, scoring = [], []
    for _ in range(PAIRS):
        began = time.perf_counter()
        with torch.no_grad():
            prefill(assistant.model, collate([sample]))
        middle = time.perf_counter()
        assistant.score(sample, CANDIDATES)
        reading.append(middle - began)
        scoring.append(time.perf_counter() - middle)
    ratios = [after / before for before, after in zip(reading, scoring, strict=True)]
    print(f"reading {median(reading):.2f} s, scoring {median(scoring):.2f} s, ratio {median(ratios):.2f}")


class Made(QuestionReader):
    """Questions about images in a folder."""

    def __init__(self, folder: Path, questions: int, images: int) -> None:
        self.folder, self.number, self.images = folder, questions, images
        for image in range(images):
            Image.new("RGB", (40, 40), (image, 255 - image, 90)).save(folder / f"{image}.png")

    def questions(self, *_: object, **__: object) -> Iterator[Question]:
        """Yield them; their lengths differ by a factor of five."""
        generator = torch.Generator().manual_seed(0)
        for number in range(self.number):
            words = int(torch.randint(3, 30, (), generator=generator))
            text, name = "is it red " + "or blue " * words, f"{number % self.images}.png"
            turns = (Turn("user", f"<image>\n{text}"), Turn("assistant", ""))
            sample = Sample(turns, (ImageFile(self.folder / name, name),), id=str(number))
            yield Question(id=str(number), sample=sample, text=text, image=name, truths=("red",))


def bench_questions() -> None:
    """Count encoded images and padding, and compare the replies of three sizes of a batch."""
    assistant, replies = make("model=visualrwkv6_tiny"), []
    modality, encoded = assistant.model.modalities["image"], []
    modality.encoder.register_forward_hook(lambda *call: encoded.append(len(call[-1])))
    with tempfile.TemporaryDirectory() as name:
        task = Task(reader=Made(Path(name), 1000, 200), metric=exact_match, main="accuracy", max_new_tokens=8)
        for size in (1, 7, 64):
            folder, began = Path(name) / f"batch_{size}", time.perf_counter()
            result = run_task(assistant, task, TaskRun(name="made", root=folder, folder=folder, batch_size=size))
            seconds = time.perf_counter() - began
            replies.append([line["text"] for line in jsonl.records(folder / ANSWERS)])
            print(
                f"batch {size}: {sum(encoded)} images encoded, padding {result['padding']:.1%}, {seconds:.0f} s, "
                f"{sum(a == b for a, b in zip(replies[0], replies[-1], strict=True))} replies as with batch 1"
            )
            encoded.clear()


def main() -> None:
    """Run what is named; everything where nothing is."""
    for name in sys.argv[1:] or ["score", "questions"]:
        {"score": bench_score, "questions": bench_questions}[name]()


if __name__ == "__main__":
    main()
