"""Every example in a docstring of `lib` runs and prints what it says, and every public name has one."""

import doctest
import importlib

import pytest
import torch
from api import modules, names_of, public

from tests.fuzz.registry import EXCUSED, excused

# Beside what no fuzz test covers either (`EXCUSED` there).
UNSHOWN = {
    **EXCUSED,
    "a result file holds a hash of this source, and is continued while it stays the same": tuple(
        f"lib.results.{m}.*"
        for m in ("digits", "models", "nets", "plane", "prior", "protocol", "training")
    ),
}


def shown(what) -> bool:
    """Whether the docstring of a function, or of a class itself, holds an example."""
    return ">>> " in (what.__doc__ or "")


@pytest.mark.parametrize("module", [m for m in modules() if any(map(shown, names_of(m).values()))])
def test_examples(module):
    torch.set_printoptions(profile="default")  # `setup` has others, and other tests call it
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(verbose=False)
    said: list[str] = []
    for example in finder.find(importlib.import_module(module)):
        torch.manual_seed(0)
        runner.run(example, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)


def test_every_public_name_has_an_example():
    left = [n for n, what in public().items() if not shown(what) and excused(n, UNSHOWN) is None]
    assert not left, f"no example: {', '.join(left)}"


def test_an_excuse_is_not_a_habit():
    """Most of the library is shown, and no excuse is out of date."""
    names = public()
    assert sum(map(shown, names.values())) > 0.6 * len(names)
    for reason, patterns in UNSHOWN.items():
        for pattern in patterns:
            assert any(excused(n, {reason: (pattern,)}) for n in names), f"{pattern} names nothing"
