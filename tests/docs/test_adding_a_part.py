"""A part is added by two files, its class and its card, and its export; the tests that walk over `conf/` find it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ("mmrnn", "kernels", "conf", "tests/conf", "tests/conftest.py", "pyproject.toml")


class Part(NamedTuple):
    """A part to add: its room, module, class and option, the code of the class, the card."""

    room: str
    module: str
    name: str
    option: str
    code: str
    card: str


PARTS = (
    Part(
        "mmrnn.connectors",
        "mmrnn/connectors/low_rank.py",
        "LowRank",
        "connector/low_rank",
        '''"""Low-rank projection."""

from torch import Tensor, nn

from mmrnn.types import Connector, Layout


class LowRank(nn.Module, Connector):
    """Two linear maps through `rank` dimensions."""

    def __init__(self, in_dim: int, out_dim: int | None = None, *, rank: int = 8):
        super().__init__()
        self.width = out_dim or in_dim
        self.down = nn.Linear(in_dim, rank, bias=False)
        self.up = nn.Linear(rank, self.width)

    def layout(self, layout: Layout) -> Layout:
        """One visual token per encoder token."""
        return layout

    def forward(self, tokens: Tensor, layout: Layout | None = None) -> Tensor:
        """Project the tokens."""
        return self.up(self.down(tokens))
''',
        "# Two linear maps through a few dimensions\nrank: 8  # dimensions in between\n",
    ),
    Part(
        "mmrnn.encoders",
        "mmrnn/encoders/cells.py",
        "Cells",
        "encoder/cells_tiny",
        '''"""Mean colours of a grid of cells."""

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from mmrnn.types import Encoder, ImageSpec, Layout


class Cells(nn.Module, Encoder):
    """One token per cell: its mean colour, projected."""

    def __init__(self, *, cells: int = 4, width: int = 16, size: int = 32):
        super().__init__()
        self.width, self.cells = width, cells
        self.image = ImageSpec((size, size))
        self.proj = nn.Linear(3, width)

    def layout(self, height: int, width: int) -> Layout:
        """A grid of `cells` x `cells` tokens."""
        return Layout(rows=self.cells, cols=self.cells)

    def forward(self, images: Tensor) -> Tensor:
        """Encode the images."""
        return self.proj(adaptive_avg_pool2d(images, self.cells).flatten(2).transpose(1, 2))
''',
        "# Mean colours of 4 x 4 cells\ncells: 4   # per side\nwidth: 16  # of a token\nsize: 32   # pixels per side\n",
    ),
    Part(
        "mmrnn.tokenizers",
        "mmrnn/tokenizers/utf8.py",
        "UTF8Tokenizer",
        "tokenizer/utf8",
        '''"""Byte tokenizer."""

from mmrnn.types import Tokenizer


class UTF8Tokenizer(Tokenizer):
    """Bytes of a text as ids 1 to 256; 0 pads and ends."""

    vocab = 257
    pad = 0
    ends = (0,)

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        return [byte + 1 for byte in text.encode()]

    def decode(self, ids: list[int]) -> str:
        """Text of ids."""
        return bytes(id - 1 for id in ids if 0 < id < 257).decode("utf-8", "replace")
''',
        "# Bytes\n",
    ),
    Part(
        "mmrnn.data.readers",
        "mmrnn/data/readers/colours.py",
        "Colours",
        "data/colours",
        '''"""Colours of images in a table."""

from typing import ClassVar

from mmrnn.data.readers.image_folder import ImageFolder
from mmrnn.data.readers.record_dataset import Parsed, RecordDataset
from mmrnn.io.records.tsv import TsvTable
from mmrnn.types import Sample, Turn
from mmrnn.types.records import Record


class Colours(RecordDataset):
    """Lines `IMAGE<tab>COLOUR` under a line of names; images are relative to the folder of the file."""

    formats: ClassVar = {".tsv": TsvTable}

    def __init__(self, *, file: str = "colours.tsv", question: str = "which colour is this?"):
        super().__init__(file=file)
        self.question = question

    def parse(self, record: Record, id: str, images: ImageFolder) -> Parsed:
        """Return the sample of a line."""
        turns = (Turn("user", f"<image>{self.question}"), Turn("assistant", record.content["colour"]))
        return Parsed(Sample(turns, (images.image(record.content["image"], {}, id),), "colour", id), [])
''',
        "# Colours of images in a table\nfile: colours.tsv  # with the columns image and colour\n"
        "question: which colour is this?  # asked each time\n",
    ),
    Part(
        "mmrnn.training",
        "mmrnn/training/objectives/smoothed.py",
        "Smoothed",
        "objective/smoothed",
        '''"""Label smoothing."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from mmrnn.model.vlm import VLM
from mmrnn.types import Objective, Output


class Smoothed(Objective):
    """Next-token prediction with label smoothing."""

    def __init__(self, *, smoothing: float = 0.1):
        self.smoothing = smoothing

    def __call__(self, model: VLM, output: Output) -> Float[Tensor, ""]:
        """Mean loss over the supervised positions."""
        logits, targets = model.head(output.hidden[:, :-1]).flatten(0, 1), output.sequence.labels[:, 1:].flatten()
        return cross_entropy(logits, targets, ignore_index=-100, label_smoothing=self.smoothing)
''',
        "# Next-token prediction with label smoothing\nsmoothing: 0.1  # share spread over the vocabulary\n",
    ),
)


def add(checkout: Path, part: Part) -> None:
    """Write the class and the card, and export the class."""
    card = checkout / "conf" / f"{part.option}.yaml"
    about, _, knobs = part.card.partition("\n")
    card.write_text(f"{about}\n_target_: {part.room}.{part.name}\n{knobs}")
    (checkout / part.module).write_text(part.code)
    init = checkout / part.room.replace(".", "/") / "__init__.py"
    module = part.module.removesuffix(".py").replace("/", ".")
    text = init.read_text().replace("__all__ = [", f'__all__ = [\n    "{part.name}",', 1)
    assert part.name in text
    init.write_text(text.replace("\nfrom ", f"\nfrom {module} import {part.name}\nfrom ", 1))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout with all the parts added, and a function that runs Python in it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, folder / name)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for part in PARTS:
        add(folder, part)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(after) == len(before) + 2 * len(PARTS)
    changed = [path for path in before if after[path] != before[path]]
    assert {path.name for path in changed} == {"__init__.py"}
    assert len(changed) == len(PARTS)
    environment = os.environ | {
        "PYTHONPATH": f"{folder}{os.pathsep}{folder / 'kernels'}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def run(*command: str) -> str:
        command = [sys.executable, "-m", *command]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return folder, run


@pytest.mark.slow
def test_the_tests_of_the_cards_find_the_parts_and_pass(checkout):
    _, run = checkout
    names = [part.option.partition("/")[2] for part in PARTS]
    chosen = (
        "-k",
        " or ".join([*names, "exception"]),
        "-m",
        "not slow",
        "-v",
        "-p",
        "no:cacheprovider",
        "--durations=5",
    )
    output = run("pytest", "tests/conf", "-o", "addopts=--import-mode=importlib", *chosen)
    for name in names:
        assert f"/{name}]" in output, f"the tests do not know {name}"


@pytest.mark.slow
def test_the_parts_work_together(checkout):
    from PIL import Image

    folder, run = checkout
    lines = ["image\tcolour", *(f"{colour}.png\ta {colour} wall" for colour in ("red", "blue"))]
    (folder / "colours.tsv").write_text("\n".join(lines))
    for colour in ("red", "blue"):
        Image.new("RGB", (40, 24), colour).save(folder / f"{colour}.png")
    choices = [part.option.replace("/", "=") for part in PARTS]
    short = ("stage.instruct.steps=3", "stage.instruct.batch_size=2", "evaluate.samples=0", "log_every=1", "out=run")
    for part in PARTS:
        group, _, option = part.option.partition("/")
        assert part.card.partition("\n")[0].removeprefix("# ") in run("mmrnn", "list", group), option
    run("mmrnn", "train", "model=visualrwkv6_tiny", *choices, *short)
    losses = [json.loads(line)["loss"] for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    assert len(losses) == 3
