"""Fingerprints of data: the same for the same samples, another one for others."""

from mmrnn.data import DemoVQA
from mmrnn.data.fingerprint import SAMPLES, data_fingerprint
from mmrnn.io.errors import RecordError
from mmrnn.types import Sample, Turn


class Texts(list):
    """Texts as samples; one that is empty is a record that cannot be read."""

    def __getitem__(self, index):
        text = super().__getitem__(index)
        if not text:
            raise RecordError("no text")
        return Sample((Turn("user", text),), id=str(index))


def fingerprint(**splits):
    return data_fingerprint(splits)


def test_every_fact_counts():
    same = fingerprint(train=Texts("abc"))
    assert fingerprint(train=Texts("abc")) == same
    others = [
        fingerprint(train=Texts("abd")),
        fingerprint(train=Texts("ab")),
        fingerprint(other=Texts("abc")),
        fingerprint(train=Texts(["a", "b", ""])),
        fingerprint(train=Texts("abc"), scenes=Texts("")),
    ]
    assert len({same, *others}) == 6


def test_a_large_set_is_not_read_whole():
    read = []

    class Many(Texts):
        def __len__(self):
            return 10**6

        def __getitem__(self, index):
            read.append(index)
            return Sample((Turn("user", "a"),))

    fingerprint(train=Many())
    assert SAMPLES <= len(read) <= SAMPLES + 1
    assert read[0] == 0
    assert read[-1] > 9 * 10**5


def test_the_default_images_are_known_by_their_knobs():
    one, same, other = (fingerprint(train=DemoVQA(scenes=scenes, rounds=2)) for scenes in (12, 12, 13))
    assert one == same != other
