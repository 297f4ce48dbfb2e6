"""Normal form of a short answer, as the scorers of VQA define it."""

import re

NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6"}
NUMBERS |= {"seven": "7", "eight": "8", "nine": "9", "ten": "10"}
ARTICLES = ("a", "an", "the")
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'

CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""
"""Contractions that are recognised with one of their apostrophes missing."""


def _misspelt(words: str) -> dict[str, str]:
    """Map each contraction with one apostrophe left out to its right form."""
    found = {}
    for word in words.split():
        for place, letter in enumerate(word):
            if letter == "'":
                found[word[:place] + word[place + 1 :]] = word
    return found


RIGHT_FORMS = _misspelt(CONTRACTIONS)


def normalise_m4c(text: str) -> str:
    """Return the normal form of M4C's scorer, which LLaVA uses (`llava/eval/m4c_evaluator.py`).

    Commas and question marks are dropped and a genitive becomes a word of its own, before the official steps.
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return clean_words(clean_punctuation(flatten(text.strip())))


def flatten(text: str) -> str:
    """Return the text with blanks for line ends and tabs, without those at the ends."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def clean_punctuation(text: str) -> str:
    """Remove punctuation: within words it becomes a blank, at their ends nothing; periods go, but not before a digit.

    In a text with a comma between digits every mark is dropped, as in GT-Vision-Lab/VQA `vqaEval.py`.
    """
    grouped = re.search(r"\d,+\d", text) is not None
    cleaned = text
    for mark in PUNCTUATION:
        outside = grouped or f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if outside else " ")
    return re.sub(r"\.(?!\d)", "", cleaned)


def clean_words(text: str) -> str:
    """Return words in lower case, number words as digits, contractions in their right form, without articles."""
    words = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(RIGHT_FORMS.get(word, word) for word in words if word not in ARTICLES)
