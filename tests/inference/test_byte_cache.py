"""The bounded cache."""

import pytest

from mmrnn.inference.byte_cache import ByteCache


def test_the_least_recently_used_leaves_first():
    cache = ByteCache(10)
    cache.put("a", 1, 4)
    cache.put("b", 2, 4)
    assert cache.get("a") == 1
    assert cache.values() == [2, 1]
    cache.put("c", 3, 4)
    assert (cache.get("b"), cache.get("a"), cache.get("c")) == (None, 1, 3)
    assert (len(cache), cache.nbytes) == (2, 8)


def test_a_value_replaces_itself_and_one_too_large_is_not_kept():
    cache = ByteCache(10)
    cache.put("a", 1, 4)
    cache.put("a", 2, 6)
    assert (cache.get("a"), cache.nbytes) == (2, 6)
    cache.put("b", 3, 11)
    assert (cache.get("b"), cache.get("a")) == (None, 2)
    cache.put("a", 4, 11)
    assert (len(cache), cache.nbytes) == (0, 0)


def test_nothing_is_kept_in_no_bytes():
    cache = ByteCache(0)
    cache.put("a", 1, 1)
    assert cache.get("a") is None
    with pytest.raises(ValueError, match=r"max_bytes \(-1\)"):
        ByteCache(-1)


def test_clear_forgets_all():
    cache = ByteCache(10)
    cache.put("a", 1, 4)
    cache.clear()
    assert (cache.get("a"), cache.nbytes) == (None, 0)
