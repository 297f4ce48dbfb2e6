"""Questions about scenes on a grid: templates, and answers computed from the scenes.

The texts are data: the generator's seeds and published figures depend on every word.
"""

from collections.abc import Callable, Sequence
from random import Random

from mmrnn.data.demo.drawings import CATEGORY_RANGES, Drawing
from mmrnn.data.demo.grid_scenes import GridScene
from mmrnn.data.demo.questions import MANY, NUMBERS, Asked, Question, count_by, labels
from mmrnn.data.demo.scenes import Placed

PLACES = {
    (column, row): "middle" if down == across == "middle" else f"{down} {across}"
    for row, down in enumerate(("top", "middle", "bottom"))
    for column, across in enumerate(("left", "middle", "right"))
}
"""Places of the grid in words, by column and row."""

WAYS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
"""Steps to a neighbouring place, in columns and rows."""

WORDINGS = {
    "name": ("{what} is at the {place}?", "{what} do you see at the {place}?"),
    "where": ("where is the {one}?", "where do you see the {one}?"),
    "beside": ("{what} is directly {way} the {one}?", "{what} do you see directly {way} the {one}?"),
    "two_steps": (
        "{what} is directly {way} the thing directly {first} the {one}?",
        "{what} do you see directly {way} the thing directly {first} the {one}?",
    ),
    "mark": ("what colour is the small shape?", "which colour has the small shape?"),
    "count_of": ("how many {many} are there?", "how many {many} do you see?"),
    "most": ("of which kind are there most things?", "which kind of thing do you see most?"),
    "gone": ("{what} is in the first image but not in the second?",),
    "new": ("{what} is in the second image but not in the first?",),
}
"""Templates of each form of question; the kind `changed` has two forms: gone and new."""

NAME_PROBABILITY = 0.7
"""Probability that a drawing that questions may name is asked for by name, and not by category."""

COUNT_WEIGHTS = (0.8, 2.0, 2.0, 2.8)
"""Relative frequency with which a number is asked for, if the scene has a category with it."""


def described(thing: Drawing, rng: Random) -> tuple[str, str]:
    """Return the words that ask for a drawing, and the answer: its name if questions may use it, or its category."""
    if thing.asked and rng.random() < NAME_PROBABILITY:
        return "what", thing.name
    return "what kind of thing", thing.category


def name(scene: GridScene, rng: Random) -> Asked:
    """Ask for the drawing at a place."""
    placed = rng.choice(scene.drawings)
    what, answer = described(placed.thing, rng)
    return "name", {"what": what, "place": PLACES[scene.cell(placed)]}, answer


def where(scene: GridScene, rng: Random) -> Asked:
    """Ask for the place of a drawing."""
    found = labels(scene, rng)
    return ("where", {"one": found[0][0]}, PLACES[scene.cell(found[0][1])]) if found else None


def step(scene: GridScene, placed: Placed, way: str) -> Placed | None:
    """Return the drawing at the neighbouring place."""
    (column, row), (right, down) = scene.cell(placed), WAYS[way]
    return scene.at((column + right, row + down))


def differ(one: Placed, other: Placed) -> bool:
    """Return True for drawings of two categories. In others the question would tell the answer: scenes have few."""
    return one.thing.category != other.thing.category


def beside(scene: GridScene, rng: Random) -> Asked:
    """Ask for the drawing beside another."""
    found = [
        (one, way, there)
        for one, placed in labels(scene, rng)
        for way in WAYS
        if (there := step(scene, placed, way)) is not None and differ(placed, there)
    ]
    if not found:
        return None
    one, way, there = rng.choice(found)
    what, answer = described(there.thing, rng)
    return "beside", {"what": what, "way": way, "one": one}, answer


def two_steps(scene: GridScene, rng: Random) -> Asked:
    """Ask for the drawing beside the one beside another, never for that one again."""
    found = [
        (one, first, way, there)
        for one, placed in labels(scene, rng)
        for first in WAYS
        if (between := step(scene, placed, first)) is not None
        for way in WAYS
        if (there := step(scene, between, way)) is not None and differ(placed, there)
    ]
    if not found:
        return None
    one, first, way, there = rng.choice(found)
    what, answer = described(there.thing, rng)
    return "two_steps", {"what": what, "way": way, "first": first, "one": one}, answer


def mark(scene: GridScene, _: Random) -> Asked:
    """Ask for the colour of the mark."""
    return ("mark", {}, scene.mark.colour) if scene.mark else None


def count_of(scene: GridScene, rng: Random) -> Asked:
    """Ask for the number of drawings of a category, none to three."""
    counts = count_by(scene, "category")
    [number] = rng.choices(range(len(COUNT_WEIGHTS)), COUNT_WEIGHTS)
    chosen = [category for category in CATEGORY_RANGES if counts[category] == number]
    return ("count_of", {"many": MANY[rng.choice(chosen)]}, NUMBERS[number]) if chosen else None


def most(scene: GridScene, _: Random) -> Asked:
    """Ask for the category with most drawings, of two or more."""
    ranked = count_by(scene, "category").most_common(2)
    if len(ranked) < 2 or ranked[0][1] == ranked[1][1]:
        return None
    return "most", {}, ranked[0][0]


def changed(first: GridScene, second: GridScene, rng: Random) -> Asked:
    """Ask for the one drawing that is in one of two scenes only; nothing else there has its category."""
    here, there = (first, second) if (form := rng.choice(("gone", "new"))) == "gone" else (second, first)
    others = count_by(there, "category")
    [thing] = [placed.thing for placed in here.drawings if placed.thing.category not in others]
    what, answer = described(thing, rng)
    return form, {"what": what}, answer


ABOUT_ONE: dict[str, Callable[[GridScene, Random], Asked]] = {
    kind.__name__: kind for kind in (name, where, beside, two_steps, mark)
}
"""Kinds of question about one thing, or about a few that depend on each other."""

ABOUT_ALL: dict[str, Callable[..., Asked]] = {kind.__name__: kind for kind in (count_of, most, changed)}
"""Kinds of question for which every thing must be looked at; `changed` is about two images."""

ASK = ABOUT_ONE | ABOUT_ALL

LEAST = {"beside": 2, "two_steps": 3, "count_of": 3, "most": 3}
"""Least number of drawings of a scene for the kinds that need more than one."""


def ask_grid(kind: str, scenes: Sequence[GridScene], rng: Random) -> Question | None:
    """Return a question of a kind about one scene, for `changed` about two; None: there is no unambiguous answer."""
    asked = ASK[kind](*scenes, rng)
    if asked is None:
        return None
    form, gaps, answer = asked
    return Question(kind, rng.choice(WORDINGS[form]).format(**gaps), answer)


def in_words(scenes: Sequence[GridScene], rng: Random) -> str:
    """Return sentences that say everything that is asked about scenes: each drawing with its place, and the mark.

    The drawings are in random order, by name if questions may use it, or by category.
    """
    parts = []
    for rank, scene in enumerate(scenes):
        facts = [
            f"the {placed.thing.name if placed.thing.asked else placed.thing.category} is at the {PLACES[cell]}"
            for placed in scene.drawings
            for cell in (scene.cell(placed),)
        ]
        rng.shuffle(facts)
        facts += [f"the small shape is {scene.mark.colour}"] if scene.mark else []
        start = f"in the {('first', 'second')[rank]} image " if len(scenes) > 1 else ""
        parts.append(f"{start}{', '.join(facts)}.")
    return " ".join(parts)
