"""Questions about a scene: templates, and answers computed from the scene.

The texts are data: the generator's seeds, the vocabulary of `DemoTokenizer` and published figures depend on every word.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from mmrnn.data.demo.drawings import CATEGORY_RANGES, NAMED_DRAWINGS, spoken_name
from mmrnn.data.demo.scenes import Placed, Scene
from mmrnn.data.demo.sprites import COLOURS

NUMBERS = ("none", "one", "two", "three", "four", "five")
ORDINALS = ("first", "second", "third", "fourth")
CORNERS = {"top left": (-1, -1), "top right": (1, -1), "bottom left": (-1, 1), "bottom right": (1, 1)}
MIDDLE = "middle"
ENDS = {
    "on the far left": (1, 0),
    "on the far right": (-1, 0),
    "at the very top": (0, 1),
    "at the very bottom": (0, -1),
}
WAYS = {"left": (1, 0), "right": (-1, 0), "up": (0, 1), "down": (0, -1)}
MANY = {category: f"{category}s" for category in CATEGORY_RANGES} | {
    "food": "pieces of food",
    "clothing": "pieces of clothing",
}

WORDINGS = {
    "name": ("what is {place}?", "name the thing {place}.", "which thing do you see {place}?"),
    "category": (
        "what kind of thing is {place}?",
        "which kind of thing do you see {place}?",
        "name the kind of the thing {place}.",
    ),
    "colour": (
        "what colour is the thing {place}?",
        "which colour has the thing {place}?",
        "name the colour of the thing {place}.",
    ),
    "count": ("how many things are there?", "how many things do you see?", "count the things."),
    "count_of": ("how many {many} are there?", "how many {many} do you see?", "count the {many}."),
    "where": ("where is the {one}?", "in which corner is the {one}?", "where do you see the {one}?"),
    "side": (
        "where is the {one}, seen from the {other}?",
        "on which side of the {other} is the {one}?",
        "is the {one} left, right, above or below the {other}?",
    ),
    "which": (
        "which is further {way}, the {one} or the {other}?",
        "what is further {way}: the {one} or the {other}?",
        "the {one} or the {other}: which is further {way}?",
    ),
    "describe": ("describe the image.", "what do you see, and where?", "say what is where."),
    "same": ("are the two things the same?", "is it the same thing twice?", "do you see the same thing twice?"),
    "digits": ("read the digits.", "which digits do you see?", "what is written here?"),
    "digit": ("what is the {rank} digit?", "read the {rank} digit.", "which digit is the {rank} one?"),
}
"""Templates of each form of question; the kind `position` has three forms: where, side and which."""

COLOUR_PROBABILITY = {"grey": 0.3, "red": 0.4, "brown": 0.5, "blue": 0.6, "green": 0.7, "yellow": 0.7}
"""Probability that a drawing of a frequent colour is asked about its colour; for other colours it is 1."""

MIN_GAP = 0.1
"""Least distance, as a share of the canvas, for an answer about positions."""

SIDE_RATIO = 1.7
"""Least ratio of the distances along and across a side for an answer that names the side."""


@dataclass(frozen=True)
class Question:
    """A question and its answer.

    Attributes:
        kind: one of `KINDS`.
        text: of the question.
        answer: in words; there is exactly one.
    """

    kind: str
    text: str
    answer: str


Asked = tuple[str, dict[str, str], str] | None
"""Form of a question (key of `WORDINGS`), values of its template, and answer; None: the scene does not allow it."""


def in_corner(placed: Placed, towards: tuple[int, int], size: int, slack: float) -> bool:
    """Return True for an object in the corner `towards`, `slack` (share of the canvas) beyond both middle lines."""
    right, down = placed.x / size - 0.5, placed.y / size - 0.5
    return min(right * towards[0], down * towards[1]) >= slack


def side(one: Placed, other: Placed) -> str | None:
    """Return the side of `other` that `one` is on; None: it is ambiguous."""
    right, down = one.x - other.x, one.y - other.y
    if abs(right) > SIDE_RATIO * abs(down):
        return "right" if right > 0 else "left"
    if abs(down) > SIDE_RATIO * abs(right):
        return "below" if down > 0 else "above"
    return None


def places(scene: Scene) -> Iterator[tuple[str, Placed]]:
    """Yield the drawings that a place identifies, with the place in words.

    These are: a single drawing, the only one in a corner, and of two or three the furthest to a side.
    """
    drawings, size = scene.drawings, scene.size
    if len(drawings) == 1:
        yield "in the image", drawings[0]
        return
    for name, towards in CORNERS.items():
        near = [placed for placed in drawings if in_corner(placed, towards, size, MIN_GAP / 4)]
        if len(near) == 1 and in_corner(near[0], towards, size, MIN_GAP / 2):
            yield f"at the {name}", near[0]
    for name, (right, down) in ENDS.items() if 1 < len(drawings) < 4 else ():
        first, second = sorted((right * placed.x + down * placed.y, rank) for rank, placed in enumerate(drawings))[:2]
        if second[0] - first[0] >= MIN_GAP * size:
            yield name, drawings[first[1]]


def count_by(scene: Scene, attribute: str) -> Counter[str]:
    """Count the drawings of a scene by an attribute."""
    return Counter(getattr(placed.thing, attribute) for placed in scene.drawings)


def labels(scene: Scene, rng: Random) -> list[tuple[str, Placed]]:
    """Return the drawings that a label identifies, shuffled: their name, or their category where no other has it."""
    names, categories = count_by(scene, "name"), count_by(scene, "category")
    found = []
    for placed in scene.drawings:
        thing = placed.thing
        options = [thing.name] if thing.asked and names[thing.name] == 1 else []
        options += [thing.category] if categories[thing.category] == 1 else []
        if options:
            found.append((rng.choice(options), placed))
    rng.shuffle(found)
    return found


def name(scene: Scene, rng: Random) -> Asked:
    """Ask for the name of a drawing."""
    found = [(place, placed.thing.name) for place, placed in places(scene) if placed.thing.asked]
    if not found:
        return None
    place, answer = rng.choice(found)
    return "name", {"place": place}, answer


def category(scene: Scene, rng: Random) -> Asked:
    """Ask for the category of a drawing."""
    found = [(place, placed.thing.category) for place, placed in places(scene)]
    if not found:
        return None
    place, answer = rng.choice(found)
    return "category", {"place": place}, answer


def colour(scene: Scene, rng: Random) -> Asked:
    """Ask for the dominant colour of a drawing; never of faces (yellow), less often of frequent colours."""
    found = [
        (place, placed.thing.colour)
        for place, placed in places(scene)
        if placed.thing.colour
        and placed.thing.category != "face"
        and rng.random() < COLOUR_PROBABILITY.get(placed.thing.colour, 1)
    ]
    if not found:
        return None
    place, answer = rng.choice(found)
    return "colour", {"place": place}, answer


def count(scene: Scene, _: Random) -> Asked:
    """Ask for the number of drawings."""
    return ("count", {}, NUMBERS[len(scene.drawings)]) if scene.drawings else None


def count_of(scene: Scene, rng: Random) -> Asked:
    """Ask for the number of drawings of a category: one time in four none, else each number is as likely."""
    if not scene.drawings:
        return None
    counts = count_by(scene, "category")
    number = 0 if rng.random() < 0.25 else rng.choice(sorted(set(counts.values())))
    chosen = rng.choice([category for category in CATEGORY_RANGES if counts[category] == number])
    return "count_of", {"many": MANY[chosen]}, NUMBERS[number]


def position(scene: Scene, rng: Random) -> Asked:
    """Ask for the corner that a drawing is in, the side of another, or the one of two further to a side."""
    found = labels(scene, rng)
    forms = rng.sample(("side", "which"), 2)
    for form in ("where", *forms) if rng.random() < 0.4 else (*forms, "where"):
        if form == "where" and found:
            one, placed = found[0]
            for answer, towards in CORNERS.items():
                if in_corner(placed, towards, scene.size, MIN_GAP / 2):
                    return "where", {"one": one}, answer
        elif form != "where" and len(found) > 1:
            (one, here), (other, there) = found[:2]
            if form == "side" and (answer := side(here, there)):
                return "side", {"one": one, "other": other}, answer
            way, (right, down) = rng.choice(list(WAYS.items()))
            ahead = right * (there.x - here.x) + down * (there.y - here.y)
            if form == "which" and abs(ahead) >= MIN_GAP * scene.size:
                return "which", {"way": way, "one": one, "other": other}, one if ahead > 0 else other
    return None


def describe(scene: Scene, _: Random) -> Asked:
    """Ask for all drawings in reading order with their places, by name or, if questions may not name them, by category.

    A single drawing has no place.
    """
    corners = [*CORNERS.items()]
    parts = []
    for place, towards in (*corners[:2], (MIDDLE, None), *corners[2:]):
        for placed in scene.drawings:
            corner = next((at for at in CORNERS.values() if in_corner(placed, at, scene.size, MIN_GAP / 2)), None)
            if corner == towards:
                label = placed.thing.name if placed.thing.asked else placed.thing.category
                parts.append(label if len(scene.drawings) == 1 else f"{place} {label}")
    return ("describe", {}, ", ".join(parts)) if parts else None


def same(scene: Scene, _: Random) -> Asked:
    """Ask if two drawings are the same; never of faces, which are too similar."""
    if len(scene.drawings) != 2 or "face" in count_by(scene, "category"):
        return None
    return "same", {}, "yes" if len(count_by(scene, "char")) == 1 else "no"


def digits(scene: Scene, _: Random) -> Asked:
    """Ask for all digits from left to right."""
    return ("digits", {}, " ".join(str(placed.thing.value) for placed in scene.digits)) if scene.digits else None


def digit(scene: Scene, rng: Random) -> Asked:
    """Ask for one digit by its rank."""
    if not scene.digits:
        return None
    rank = rng.randrange(len(scene.digits))
    return "digit", {"rank": ORDINALS[rank]}, str(scene.digits[rank].thing.value)


ASK: dict[str, Callable[[Scene, Random], Asked]] = {
    kind.__name__: kind for kind in (name, category, colour, count, count_of, position, describe, same, digits, digit)
}

KINDS = tuple(ASK)


def ask(kind: str, scene: Scene, rng: Random) -> Question | None:
    """Return a question of a kind about a scene; None: the scene allows none with an unambiguous answer."""
    asked = ASK[kind](scene, rng)
    if asked is None:
        return None
    form, gaps, answer = asked
    return Question(kind, rng.choice(WORDINGS[form]).format(**gaps), answer)


def vocabulary() -> tuple[str, ...]:
    """Return all words, digits and punctuation marks of questions and answers, sorted."""
    gaps = {"place", "many", "one", "other", "way", "rank"}
    texts = [wording.format(**dict.fromkeys(gaps, "")) for wordings in WORDINGS.values() for wording in wordings]
    texts += [spoken_name(short) for names in NAMED_DRAWINGS.values() for short in names.split()]
    texts += [
        *CATEGORY_RANGES,
        *MANY.values(),
        *COLOURS,
        *NUMBERS,
        *ORDINALS,
        *CORNERS,
        MIDDLE,
        *ENDS,
        *WAYS,
        "above below at the",
    ]
    texts += ["in the image yes no", " ".join("0123456789")]
    return tuple(sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text)}))
