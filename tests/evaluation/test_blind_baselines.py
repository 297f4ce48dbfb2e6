from mmrnn.evaluation.blind_baselines import Baseline, baselines, pairs
from mmrnn.types.sample import Sample, Turn


def sample(kind: str, *texts: str) -> Sample:
    turns = (Turn("user" if rank % 2 == 0 else "assistant", text) for rank, text in enumerate(texts))
    return Sample(tuple(turns), kind=kind)


def test_a_question_is_its_text_without_the_image():
    asked = sample("", "<image>\nhow many?", "two", "which?", "a cat")
    assert list(pairs(asked)) == [("how many?", "two"), ("which?", "a cat")]


def test_baselines_of_every_kind():
    train = [
        sample("", "<image>\nhow many?", "two", "which colour?", "red"),
        sample("", "<image>\nwhich colour?", "blue", "how many?", "two"),
        sample("colour", "<image>\nwhich colour?", "blue"),
    ]
    test = [
        sample("count", "<image>\nhow many?", "two"),
        sample("count", "<image>\nhow many?", "three"),
        sample("count", "<image>\nhow many?", "three"),
        sample("colour", "<image>\nwhich colour?", "blue"),
        sample("colour", "<image>\nwhat is its colour?", "green"),
        sample("colour", "<image>\nwhat is its colour?", "green"),
    ]
    assert baselines(train, test) == {
        "count": Baseline(2 / 3, 1 / 3, 3, 1 / 2),
        "colour": Baseline(2 / 3, 1.0, 3, 1 / 2),
    }


def test_nothing_to_learn_from_leaves_the_constant():
    test = [sample("same", "<image>\nthe same?", "yes"), sample("same", "<image>\nthe same?", "yes")]
    assert baselines([], test) == {"same": Baseline(1.0, 1.0, 2, 1.0)}
