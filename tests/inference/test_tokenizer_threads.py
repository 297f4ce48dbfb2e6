"""Tokenizers that several threads use at once, from the first text on."""

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from mmrnn.tokenizers import DemoTokenizer, HFTokenizer, RWKVWorldTokenizer, demo

TEXTS = [f"User: what is the {word}? 你好 🙂\n\n" * 5 for word in ("cat", "dog", "tree", "house", "ball", "sun")]
THREADS = len(TEXTS)


@pytest.fixture
def often():
    """Let threads take turns far more often than by default."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def fresh(name, folder):
    """A tokenizer that has read nothing yet."""
    if name == "demo":
        demo._tables.cache_clear()
        demo._encode.cache_clear()
        return DemoTokenizer()
    if name == "world":
        return RWKVWorldTokenizer()
    letters = pre_tokenizers.ByteLevel.alphabet()
    file = Tokenizer(models.BPE({letter: id for id, letter in enumerate(sorted(letters))}, []))
    file.pre_tokenizer, file.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    file.save(str(folder / "tokenizer.json"))
    return HFTokenizer(path=str(folder / "tokenizer.json"), bos=None, pad=None, eos=("a",), prefix_space=False)


@pytest.mark.parametrize("name", ["demo", "world", "file"])
def test_every_thread_gets_what_it_gets_alone(name, tmp_path, often):
    alone = [fresh(name, tmp_path).encode(text) for text in TEXTS]
    tokenizer, barrier = fresh(name, tmp_path), Barrier(THREADS)

    def work(index):
        barrier.wait()
        ids = [tokenizer.encode(TEXTS[index]) for _ in range(20)]
        return ids, [tokenizer.decode(each) for each in ids]

    with ThreadPoolExecutor(THREADS) as pool:
        for index, (ids, texts) in enumerate(pool.map(work, range(THREADS))):
            assert ids == [alone[index]] * 20
            assert texts == [TEXTS[index]] * 20
