"""A run of BLIP-2's first stage in miniature, over drawings whose captions differ in one word."""

import json

from PIL import Image

from mmrnn.cli.main import main

COLORS = ("red", "green", "blue", "yellow", "black", "white")
TINY = ("model=blip2_stage1", "encoder=eva_tiny", "connector=qformer_text_tiny", "objective=blip2_tiny")
TRAIN = ("tokenizer=demo", "data=captions", "schedule.warmup=0", "evaluate.samples=0", "log_every=100", "workers=0")


def caption(color):
    return f"a {color} wall"


def write_images(folder):
    """A folder with an image of each colour."""
    folder.mkdir(parents=True, exist_ok=True)
    for color in COLORS:
        Image.new("RGB", (24, 24), color).save(folder / f"{color}.png")
    return folder


def train(folder, *words, steps=2):
    """Train in `folder/run`, which is returned."""
    images = write_images(folder / "images")
    lines = [json.dumps({"image": f"{color}.png", "caption": caption(color)}) for color in COLORS]
    (images / "captions.jsonl").write_text("\n".join(lines))
    size = ("stage.bridge.batch_size=6", f"stage.bridge.steps={steps}")
    data = (f"data.file={images}/captions.jsonl", f"out={folder}/run")
    assert main(["train", *TINY, *TRAIN, *size, *data, *words]) == 0
    return folder / "run"
