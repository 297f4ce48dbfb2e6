"""Values of YAML, in the types that signatures ask for."""

from typing import Any, Literal

import pytest

from mmrnn.config.coerce import coerce


@pytest.mark.parametrize(
    ("value", "hint", "wanted"),
    [
        (1, float, 1.0),
        (1, int | float, 1),
        ([1, 2], tuple[int, int], (1, 2)),
        ([1, 2, 3], tuple[float, ...], (1.0, 2.0, 3.0)),
        ([1], list[int] | None, [1]),
        (None, int | None, None),
        ("last", Literal["first", "last"] | int, "last"),
        ({"a": 1}, dict[str, float], {"a": 1.0}),
        (object, Any, object),
    ],
)
def test_values_take_the_form_that_the_signature_asks_for(value, hint, wanted):
    fitted = coerce(value, hint)
    assert fitted == wanted
    assert type(fitted) is type(wanted)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (True, int, "expected int, got True"),
        (1.5, int, "expected int, got 1.5"),
        ("1", float, "expected float, got '1'"),
        (None, str, "expected str, got None"),
        ("x", int | None, "expected int or null, got 'x'"),
        ([1], tuple[int, int], "expected 2 values, got 1: [1]"),
        (3, tuple[int, int], "expected tuple[int, int], got 3"),
        (
            "frist",
            Literal["first", "last"],
            "expected one of 'first', 'last', got 'frist'; did you mean 'first'?",
        ),
        ("frist", Literal["first"] | None, "expected one of 'first', got 'frist'; did you mean 'first'?"),
    ],
)
def test_values_of_another_type_are_refused(value, hint, message):
    with pytest.raises(TypeError) as caught:
        coerce(value, hint)
    assert str(caught.value) == message
