"""`check`: a reader's answer, tested on generic inputs; a hint instead of the solution."""

from __future__ import annotations

import copy
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
import torch

_checkers: dict[str, Callable[[Any], None]] = {}
TYPED = 2e-3  # how far a number that a reader types, with three digits, may be off


class Hint(Exception):
    """What to tell a reader whose answer is not right yet."""


def exercise(label: str) -> Callable:
    """Register a checker: a function of the answer that raises `Hint` where it is not right."""

    def register(checker: Callable[[Any], None]) -> Callable[[Any], None]:
        if label in _checkers and _checkers[label].__module__ != checker.__module__:
            raise ValueError(f"exercise {label} is registered twice")
        _checkers[label] = checker
        return checker

    return register


def require(condition: Any, hint: str) -> None:
    """Raise `Hint(hint)` unless the condition holds."""
    if not bool(condition):
        raise Hint(hint)


def close(got: Any, want: Any, hint: str, *, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Raise `Hint(hint)` unless the numbers or tensors agree in shape and value.

    The default is what a right answer computed in float32 reaches.
    """
    want = torch.as_tensor(want, dtype=torch.float64)
    require(torch.allclose(number(got, tuple(want.shape)), want, rtol=rtol, atol=atol), hint)


def number(value: Any, shape: tuple[int, ...] | None = None) -> torch.Tensor:
    """A number, a tuple or a tensor as float64, of this shape; a sentence if it is not.

    For a single number a tensor or a tuple with one element does too.
    """
    try:
        got = _tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise Hint(f"a number or a tensor was expected, not {type(value).__name__}") from None
    if shape == () and got.numel() == 1:
        got = got.reshape(())
    if shape is not None:
        require(got.shape == shape, f"the shape should be {shape}, and it is {tuple(got.shape)}")
    return got


def _tensor(value: Any) -> torch.Tensor:
    if isinstance(value, tuple | list):  # also of arrays, which torch does not take
        return torch.stack([_tensor(v) for v in value])
    if isinstance(value, SupportsFloat) and not hasattr(value, "shape"):
        return torch.tensor(float(value), dtype=torch.float64)  # also a fraction
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufO":
        value = np.array(value, np.float64)  # torch takes no negative strides, no other byte order
    got = torch.as_tensor(value).detach()
    require(not got.is_complex(), "a real number was expected, not a complex one")
    return got.to("cpu", torch.float64)


def known(
    got: torch.Tensor, mistakes: dict[str, Any], rtol: float = 1e-4, atol: float = 1e-8
) -> None:
    """Raise the hint of the first known mistake that the answer equals."""
    for hint, wrong in mistakes.items():
        wrong = torch.as_tensor(wrong, dtype=torch.float64)
        same = got.shape == wrong.shape and torch.allclose(
            got, wrong, rtol=rtol, atol=atol, equal_nan=True
        )
        require(not same, hint)


def seeded(seed: int, *shape: int) -> torch.Tensor:
    """Standard normal numbers in float64, the same at each call, to try an answer on."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def call(answer: Any, *args: Any, own: bool = True) -> Any:
    """Call the reader's function; say in a sentence what went wrong inside it.

    `own`: it gets copies of tensors and lists, and may change them: the checker needs its own
    again. False where an exercise asks to leave the input alone.
    """
    if not callable(answer):
        raise Hint(f"a function was expected, not {type(answer).__name__}")
    if own:
        args = tuple(map(_own, args))
    try:
        result = answer(*args)
    except Exception as error:  # whatever the reader's code raises is shown, not thrown
        raise Hint(f"your function raised {type(error).__name__}: {error}") from None
    if result is None or result is ...:
        raise Hint("no answer yet: your function returns nothing")
    return result


def _own(x: Any) -> Any:
    if isinstance(x, torch.Tensor):
        return x.clone()  # not a deep copy: gradients reach the original
    return copy.deepcopy(x) if isinstance(x, list) else x


def labels(chapter: int | str) -> list[str]:
    """The exercises of a chapter that have a checker."""
    _load(str(chapter))
    return sorted((k for k in _checkers if k.split(".")[0] == str(chapter)), key=_order)


def check(label: str, answer: Any) -> bool:
    """Test an answer to exercise `label`; print right, or a hint; return whether it is right.

    Never raises for a wrong answer, also when the answer's own code raises. Raises `ValueError`
    for an unknown exercise.
    """
    known = isinstance(label, str) and re.match(r"^\d{1,2}\.\d{1,2}$", label)
    if not known:
        raise ValueError(f"an exercise number looks like '4.2', not {label!r}")
    if label not in _checkers:
        _load(label.split(".")[0])
    if label not in _checkers:
        there = ", ".join(labels(label.split(".")[0])) or "none in that chapter yet"
        raise ValueError(f"there is no checked exercise {label}; there are: {there}")
    if answer is None or answer is ...:
        print(f"✗ Exercise {label}: no answer yet")
        return False
    try:
        _checkers[label](answer)
    except Hint as hint:
        print(f"✗ Exercise {label}: {hint}")
        return False
    except Exception as error:  # an answer of a kind that the checker did not foresee
        print(f"✗ Exercise {label}: this cannot be tested ({type(error).__name__}: {error})")
        return False
    print(f"✓ Exercise {label}: right")
    return True


def _load(chapter: str) -> None:
    name = f"ch{int(chapter):02d}"
    if (Path(__file__).parent / "exercises" / f"{name}.py").exists():
        importlib.import_module(f"lib.teach.exercises.{name}")


def _order(label: str) -> tuple[int, int]:
    a, b = label.split(".")
    return int(a), int(b)
