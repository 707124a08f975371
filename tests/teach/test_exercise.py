"""`check` never throws for a wrong answer, and never takes one."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from lib.teach import check, exercise
from lib.teach.exercise import Hint, call, close, number, require


@pytest.fixture(autouse=True)
def two_exercises():
    """Registered beside the chapters' own, which a module registers only once, at its import."""

    @exercise.exercise("99.1")
    def _(answer):
        close(call(answer, torch.tensor(3.0)), 9.0, "square it")

    @exercise.exercise("99.2")
    def _(answer):
        require(answer == 4, "count again")

    yield
    for label in exercise.labels(99):
        del exercise._checkers[label]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: x**2, "✓ Exercise 99.1: right"),
        (lambda x: 2 * x, "✗ Exercise 99.1: square it"),
        (lambda x: None, "no answer yet"),
        (lambda x: 1 / 0, "your function raised ZeroDivisionError"),
        (lambda x: torch.ones(2), "the shape should be ()"),
        (lambda x: "nine", "a number or a tensor was expected, not str"),
        (lambda x: "9.0", "a number or a tensor was expected, not str"),
        (lambda x: x**2 + 3j, "a real number was expected, not a complex one"),
        (lambda x: 9 + 3j, "a real number was expected, not a complex one"),
        (lambda x: np.array(9 + 0j), "a real number was expected, not a complex one"),
        (lambda x: Fraction(9), "✓ Exercise 99.1: right"),
        (lambda x: torch.tensor([[9.0]]), "✓ Exercise 99.1: right"),
        (lambda x: np.array(9), "✓ Exercise 99.1: right"),
        (9.0, "a function was expected, not float"),
        (None, "no answer yet"),
        (..., "no answer yet"),
    ],
)
def test_answers(answer, said, capsys):
    right = check("99.1", answer)
    out = capsys.readouterr().out
    assert said in out and right == out.startswith("✓")


@pytest.mark.parametrize(
    ("value", "want"),
    [
        ((np.array(0.5), Fraction(1, 4)), [0.5, 0.25]),
        ((torch.tensor(1), 0.1), [1.0, 0.1]),
        ([torch.ones(2), [np.float32(2), True]], [[1.0, 1.0], [2.0, 1.0]]),
        (0.1, 0.1),  # not rounded to float32 on its way
        (np.array([16.0, 26.0])[::-1], [26.0, 16.0]),
        (np.array([1.5, 2.0], dtype=">f8"), [1.5, 2.0]),
        (np.array([Fraction(1, 4), 2], dtype=object), [0.25, 2.0]),
        (np.longdouble(0.5), 0.5),
        (np.array([True, False]), [1.0, 0.0]),
    ],
)
def test_every_kind_of_number_is_one(value, want):
    assert number(value).dtype == torch.float64 and number(value).tolist() == want


@pytest.mark.parametrize("value", [None, "1", (1.0, None), [1.0, [2.0, 3.0]], {1.0}, []])
def test_what_is_no_number_gets_a_sentence(value):
    with pytest.raises(Hint, match=f"expected, not {type(value).__name__}"):
        number(value)


def test_a_list_may_be_used_up():
    given = [1, [2, 3]]
    call(lambda x: x[1].pop() + x.pop(0), given)
    assert given == [1, [2, 3]]


def test_a_plain_answer(capsys):
    assert check("99.2", 4) and not check("99.2", 5)


@pytest.mark.parametrize(
    ("label", "message"), [("99.7", "99.1, 99.2"), ("x", "looks like"), (1.2, "looks like")]
)
def test_unknown_exercise(label, message):
    with pytest.raises(ValueError, match=message):
        check(label, 1)


def test_two_checkers_for_one_exercise_are_refused():
    def other(answer):
        raise Hint("")

    other.__module__ = "elsewhere"
    with pytest.raises(ValueError, match="twice"):
        exercise.exercise("99.1")(other)


def test_an_answer_of_a_kind_that_nobody_foresaw_is_wrong_and_no_error(capsys):
    wide = lambda x_t, x, *rest: (
        x_t,
        torch.full_like(x_t, 0.2),
    )  # a variance with the data's shape
    assert not check("9.4", wide)
    assert "✗ Exercise 9.4" in capsys.readouterr().out
