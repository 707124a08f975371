"""What every chapter's checkers must do: right answers pass, known wrong ones get their hint, stubs fail.

class TestAnswers(Answers):
    CHAPTER, RIGHT, WRONG = 4, RIGHT, WRONG
"""

import copy
from typing import Any

import torch

from lib.teach import check
from lib.teach.exercise import labels


def single(x: Any) -> Any:
    """A tensor, or those of a tuple, as float32; anything else as it is."""
    if isinstance(x, tuple):
        return tuple(map(single, x))
    return x.float() if torch.is_tensor(x) and x.is_floating_point() else x


class Answers:
    CHAPTER: int
    RIGHT: dict[str, list[Any]]  # by label, answers that pass
    WRONG: dict[str, list[tuple[Any, str | tuple[str, ...]]]]  # answers and the hint, or some hints
    PLAIN: tuple[str, ...] = ()  # exercises whose answer is no function
    DOUBLE: tuple[str, ...] = ()  # those that hand in float64 functions, or ask for more digits
    PURE: tuple[str, ...] = ()  # exercises that ask not to change the input

    def pytest_generate_tests(self, metafunc):
        names = metafunc.fixturenames
        if "typed" in names:
            rows = [(k, *w) for k in self.PLAIN for w in self.WRONG[k]]
            rows = [r for r in rows if isinstance(r[1], float | tuple)]
            metafunc.parametrize(("label", "typed", "hint"), rows)
        elif "hint" in names:
            rows = [(k, *w) for k, v in self.WRONG.items() for w in v]
            metafunc.parametrize(("label", "answer", "hint"), rows)
        elif "function" in names:
            rows = [(k, a) for k, v in self.RIGHT.items() for a in v if callable(a)]
            rows = [(k, a) for k, a in rows if not isinstance(a, type)]
            metafunc.parametrize(("label", "function"), rows)
        elif "answer" in names:
            rows = [(k, a) for k, v in self.RIGHT.items() for a in v]
            metafunc.parametrize(("label", "answer"), rows)
        elif "label" in names:
            metafunc.parametrize("label", list(self.RIGHT))
        if "stub" in names:
            metafunc.parametrize("stub", [..., None])

    def test_all_checked_exercises_are_tested(self):
        assert labels(self.CHAPTER) == list(self.RIGHT) == list(self.WRONG)

    def test_right_answers_pass(self, label, answer, capsys):
        assert check(label, answer), capsys.readouterr().out

    def test_right_functions_may_use_up_their_input(self, label, function, capsys):
        def greedy(*args):
            result = function(*(a.clone() if torch.is_tensor(a) else copy.copy(a) for a in args))
            for a in args:
                if isinstance(a, list):
                    a.clear()
                elif torch.is_tensor(a):
                    a.detach().zero_()
            return result

        assert check(label, greedy) == (label not in self.PURE), capsys.readouterr().out

    def test_right_functions_pass_in_float32(self, label, function, capsys):
        right = check(label, lambda *args: single(function(*single(args))))
        assert right == (label not in self.DOUBLE), capsys.readouterr().out

    def test_wrong_answers_get_their_hint(self, label, answer, hint, capsys):
        assert not check(label, answer)
        said = capsys.readouterr().out
        assert any(h in said for h in (hint if isinstance(hint, tuple) else (hint,))), said

    def test_wrong_numbers_get_their_hint_when_rounded(self, label, typed, hint, capsys):
        four = lambda a: float(f"{a:.4g}")
        assert not check(
            label, tuple(map(four, typed)) if isinstance(typed, tuple) else four(typed)
        )
        said = capsys.readouterr().out
        assert any(h in said for h in (hint if isinstance(hint, tuple) else (hint,))), said

    def test_stubs_fail(self, label, stub, capsys):
        assert not check(label, stub)
        assert "no answer yet" in capsys.readouterr().out
        assert not check(label, lambda *a: stub)
        assert "no answer yet" in capsys.readouterr().out or label in self.PLAIN
