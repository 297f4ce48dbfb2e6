"""Captions: CIDEr, BLEU and ROUGE-L by pycocoevalcap."""

import shutil
from collections.abc import Sequence

from mmrnn.evaluation.metrics.items import Metric, Scores, TextItem, check, counts_as_wrong
from mmrnn.io.optional import require
from mmrnn.types import implements

WANTED_BY, PACKAGE, EXTRA = "the caption metric", "pycocoevalcap", "captions"


@implements(Metric)
def captions(items: Sequence[TextItem]) -> Scores:
    """Score each reply by its CIDEr, with the references of all items as the corpus.

    All is computed by `pycocoevalcap`: the tokenizer of Penn Treebank, then CIDEr (Vedantam et al. 2015), BLEU 1 to 4
    (Papineni et al. 2002) and ROUGE-L (Lin 2004), as on COCO Caption and nocaps. A reply that is too long counts as
    an empty one.

    Returns:
        Scores; the summary has cider, bleu_1 to bleu_4 and rouge_l.

    Raises:
        ValueError: no items, an id twice, or an item without reference.
        ImportError: pycocoevalcap is not installed.
        RuntimeError: Java, which its tokenizer runs on, is missing or lost a line.
    """
    check(items)
    words = _tokenise({item.id: ("" if counts_as_wrong(item) else item.reply, *item.truths) for item in items})
    replies, truths = ({id: texts[part] for id, texts in words.items()} for part in (slice(1), slice(1, None)))
    options = {"wanted_by": WANTED_BY, "extra": EXTRA}
    cider, each = require("pycocoevalcap.cider.cider", PACKAGE, **options).Cider().compute_score(truths, replies)
    bleu, _ = require("pycocoevalcap.bleu.bleu", PACKAGE, **options).Bleu(4).compute_score(truths, replies, verbose=0)
    rouge, _ = require("pycocoevalcap.rouge.rouge", PACKAGE, **options).Rouge().compute_score(truths, replies)
    summary = {"cider": float(cider), **{f"bleu_{n}": float(value) for n, value in enumerate(bleu, 1)}}
    return Scores(dict(zip(truths, map(float, each), strict=True)), summary | {"rouge_l": float(rouge)})


def _tokenise(texts: dict[str, tuple[str, ...]]) -> dict[str, list[str]]:
    """Return the words of every text, joined by blanks; a text is given to the tokenizer as one line."""
    module = require("pycocoevalcap.tokenizer.ptbtokenizer", PACKAGE, wanted_by=WANTED_BY, extra=EXTRA)
    if shutil.which("java") is None:
        raise RuntimeError(
            f"{WANTED_BY} needs Java for its tokenizer, and there is no `java` on the path: install a JRE"
        )
    lines = {key: [{"caption": _line(text)} for text in group] for key, group in texts.items()}
    found = module.PTBTokenizer().tokenize(lines)
    if {key: len(group) for key, group in found.items()} != {key: len(group) for key, group in texts.items()}:
        raise RuntimeError("Java's tokenizer did not return a line for every caption; see its message above")
    return found


def _line(text: str) -> str:
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
