"""How a run of the default training counts things of a kind by simpler rules than its own: one to four drawings, each
taken at random, and a kind taken at random, so that "none" is most often right.

    python benchmarks/counts.py RUN ...

The rules are those of an earlier trial (docs/benchmarks.md). Scenes are new; "majority" is the most frequent answer.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from random import Random
from statistics import mean

import mmrnn
from mmrnn.data import Pictures
from mmrnn.data.drawings import STRETCHES
from mmrnn.data.pictures import ScenePicture
from mmrnn.data.questions import MANY, NUMBERS, WORDINGS
from mmrnn.data.sample import TAG, Sample, Turn
from mmrnn.data.scenes import scatter
from mmrnn.evaluation.accuracy import evaluate, scores

SAMPLES = 720


def samples(split: str) -> Iterator[Sample]:
    """Scenes of what may be asked by name, or of drawings that training never showed."""
    rng, world = Random(f"counts/{split}"), Pictures(split=split)
    pool = [drawing for drawing in world.drawings if drawing.asked or split == "drawings"]
    for index in range(SAMPLES):
        scene = scatter(rng, rng.choices(pool, k=rng.randint(1, 4)), world.size)
        category = rng.choice([*STRETCHES])
        number = sum(placed.thing.category == category for placed in scene.drawings)
        question = rng.choice(WORDINGS["count_of"]).format(many=MANY[category])
        turns = (Turn("user", f"{TAG}\n{question}"), Turn("assistant", NUMBERS[number]))
        yield Sample(turns, (ScenePicture(f"counts/{split}/{index}", scene),), "count_of")


def main(runs: list[str]) -> None:
    models = [mmrnn.load(run) for run in runs]
    for split in ("scenes", "drawings"):
        asked = list(samples(split))
        shares = [scores(evaluate(model, asked))["count_of"].share for model in models]
        truths = Counter(sample.turns[-1].text for sample in asked)
        each = ", ".join(f"{share:.0%}" for share in shares)
        print(f"{split}: {mean(shares):.1%} ({each}); majority {max(truths.values()) / SAMPLES:.0%}")


if __name__ == "__main__":
    main(sys.argv[1:])
