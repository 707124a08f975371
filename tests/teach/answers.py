"""What every chapter's checkers must do: right answers pass, known wrong ones get their hint, stubs fail.

class TestAnswers(Answers):
    CHAPTER, RIGHT, WRONG = 4, RIGHT, WRONG
"""

from typing import Any

from lib.teach import check
from lib.teach.exercise import labels


class Answers:
    CHAPTER: int
    RIGHT: dict[str, list[Any]]  # by label, answers that pass
    WRONG: dict[str, list[tuple[Any, str | tuple[str, ...]]]]  # answers and the hint, or some hints
    PLAIN: tuple[str, ...] = ()  # exercises whose answer is no function

    def pytest_generate_tests(self, metafunc):
        names = metafunc.fixturenames
        if "hint" in names:
            rows = [(k, *w) for k, v in self.WRONG.items() for w in v]
            metafunc.parametrize(("label", "answer", "hint"), rows)
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

    def test_wrong_answers_get_their_hint(self, label, answer, hint, capsys):
        assert not check(label, answer)
        said = capsys.readouterr().out
        assert any(h in said for h in (hint if isinstance(hint, tuple) else (hint,))), said

    def test_stubs_fail(self, label, stub, capsys):
        assert not check(label, stub)
        assert "no answer yet" in capsys.readouterr().out
        assert not check(label, lambda *a: stub)
        assert "no answer yet" in capsys.readouterr().out or label in self.PLAIN
