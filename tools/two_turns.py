"""Accuracy of second questions about demo scenes: turns appended, and the dialogue written anew at each turn.

    mmrnn train prompt=sandwich out=RUN
    python tools/two_turns.py RUN --count 400

Each dialogue asks two questions of different kinds about one new scene; the first reply is the model's own. Beside them
stands the second question asked alone.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from PIL import Image

import mmrnn
from mmrnn.data import DemoVQA
from mmrnn.data.demo.questions import Question, ask

KINDS = ("name", "category", "colour", "count")
"""Kinds of question that the shortest training learns."""


def dialogues(count: int) -> Iterator[tuple[Image.Image, str, Question]]:
    """Yield new scenes with a first question, as text, and a second one of another kind."""
    data = DemoVQA(split="scenes", scenes=20 * count, kinds=KINDS)
    found = 0
    for index in range(len(data)):
        sample = data[index]
        [image] = sample.images
        rng = Random(index)
        others = rng.sample([kind for kind in KINDS if kind != sample.kind], len(KINDS) - 1)
        second = next(filter(None, (ask(kind, image.scene, rng) for kind in others)), None)
        if second is not None:
            yield image.open(), sample.turns[0].text, second
            found += 1
        if found == count:
            return


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--count", type=int, default=400)
    options = parser.parse_args(arguments)
    assistant, right, total = mmrnn.load(options.run), Counter(), 0
    for image, first, second in dialogues(options.count):
        replies = {"alone": assistant.ask(image, second.text, max_new_tokens=16)}
        for name, reread in (("appended", False), ("anew", True)):
            chat = assistant.chat(reread=reread)
            chat.ask(first, image, max_new_tokens=16)
            replies[name] = chat.ask(second.text, max_new_tokens=16)
        correct = {name: reply == second.answer for name, reply in replies.items()}
        right.update(correct)
        right["appended only"] += correct["appended"] > correct["anew"]
        right["anew only"] += correct["anew"] > correct["appended"]
        total += 1
    for name, number in right.items():
        print(f"{name}: {number} of {total} ({number / total:.1%})")


if __name__ == "__main__":
    main()
