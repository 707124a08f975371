"""Words for the generated images: captions, what they mean, and tokens.

"a large red circle at the left on a dark background", or for two shapes "a small red circle at the
left and a small blue square at the right on a dark background". A caption may leave out anything
but the shape: "a red circle" says nothing about size, position and background.
"""

import re

import torch
from torch import Tensor

from ..utils import check_indices
from .attributes import (
    BACKGROUNDS,
    COLOURS,
    FIELDS,
    NAMES,
    SHAPES,
    SIZES,
    Attributes,
    canonical,
    check_labels,
    labels,
)

_SMALL_WORDS = ("a", "at", "the", "and", "on", "background")
# Token 0 fills a caption up; also what an empty caption, "", is made of.
VOCABULARY = ("<pad>", *_SMALL_WORDS, *(word for names in NAMES.values() for word in names))
LENGTH = 19  # words of the longest caption

_any = lambda words: "|".join(words)
_SHAPE = (
    rf"a (?:({_any(SIZES)}) )?(?:({_any(COLOURS)}) )?({_any(SHAPES)})"
    rf"(?: at the ({_any(NAMES['position'])}))?"
)
_CAPTION = re.compile(rf"{_SHAPE}(?: and {_SHAPE})?(?: on a ({_any(BACKGROUNDS)}) background)?")
_COLUMNS = (3, 2, 1, 4, 7, 6, 5, 8, 0)  # the columns of `FIELDS` that the groups of _CAPTION fill


def caption(
    shown: Attributes | Tensor,
    say: tuple[str, ...] = ("size", "colour", "position", "background"),
) -> list[str]:
    """One sentence per image, of its attributes or of its labels (B, 9).

    Args:
        say: what to mention besides the shape. What is unknown (-1) is never mentioned.

    Raises:
        ValueError: the first shape of an image is unknown.

    >>> caption(torch.tensor([[0, 0, 0, 1, 1]]))
    ['a large red circle at the left on a dark background']
    """
    for name in say:
        if name not in NAMES:
            raise ValueError(f"a caption can say {', '.join(NAMES)}, not {name!r}")
    rows = labels(shown) if isinstance(shown, Attributes) else shown
    check_labels(rows)
    word = lambda name, k: NAMES[name][k] if k >= 0 and name in say else ""

    def thing(shape, colour, size, place):
        place = f"at the {word('position', place)}" if word("position", place) else ""
        parts = "a", word("size", size), word("colour", colour), SHAPES[shape], place
        return " ".join(filter(None, parts))

    lines = []
    for i, row in enumerate(rows.tolist()):
        if row[1] < 0:
            raise ValueError(f"image {i} has no known shape to write a caption about")
        line = thing(*row[1:5])
        if len(row) > 5 and row[5] >= 0:
            line += f" and {thing(*row[5:])}"
        ground = word("background", row[0])
        lines.append(line + (f" on a {ground} background" if ground else ""))
    return lines


def parse_captions(captions: list[str], device: torch.device | str | None = None) -> Tensor:
    """What captions say, as labels (B, 9) int64; -1 for what they do not. The inverse of `caption`.

    Of two shapes the left or the top one comes first, as in the images.

    Raises:
        ValueError: an unknown word, or words in an order that is no caption.

    >>> parse_captions(['a red circle'])
    tensor([[-1,  0,  0, -1, -1, -1, -1, -1, -1]])
    """
    rows = []
    for text in _check_captions(captions):
        words = _words(text)
        found = _CAPTION.fullmatch(" ".join(words))
        if found is None and words:
            raise ValueError(
                f"cannot read {text!r}: write it as "
                "'a large red circle at the left on a dark background'"
            )
        row = [-1] * len(FIELDS)
        for column, word in zip(_COLUMNS, found.groups() if found else (), strict=False):
            if word:
                row[column] = NAMES[FIELDS[column].removesuffix(" 2")].index(word)
        rows.append(row)
    return canonical(torch.tensor(rows, dtype=torch.int64, device=device).reshape(-1, len(FIELDS)))


def encode_captions(
    captions: list[str], length: int = LENGTH, device: torch.device | str | None = None
) -> Tensor:
    """Indices into `VOCABULARY`, (B, length) int64, filled up with 0. Case does not matter.

    Raises:
        ValueError: an unknown word, or more words than `length`.

    >>> encode_captions(['a red circle'], length=4)
    tensor([[ 1, 13,  9,  0]])
    """
    index = {word: k for k, word in enumerate(VOCABULARY)}
    tokens = torch.zeros(len(_check_captions(captions)), length, dtype=torch.int64)
    for row, text in zip(tokens, captions, strict=True):
        words = _words(text)
        if len(words) > length:
            raise ValueError(f"{text!r} has {len(words)} words, more than {length}")
        row[: len(words)] = torch.tensor([index[word] for word in words], dtype=torch.int64)
    return tokens.to(device)


def decode_captions(tokens: Tensor) -> list[str]:
    """The captions that `encode_captions` was given: (B, length) -> B strings.

    >>> decode_captions(encode_captions(['a Red circle']))
    ['a red circle']
    """
    if tokens.ndim != 2 or tokens.is_floating_point():
        raise TypeError(
            f"tokens are integers (B, length), got {tokens.dtype} {tuple(tokens.shape)}"
        )
    tokens = check_indices(tokens.cpu(), len(VOCABULARY), "tokens")
    return [" ".join(VOCABULARY[k] for k in row if k) for row in tokens.tolist()]


def _words(text: str) -> list[str]:
    words = text.lower().split()
    for word in words:
        if word not in VOCABULARY[1:]:
            raise ValueError(
                f"unknown word {word!r} in {text!r}: known are {', '.join(VOCABULARY[1:])}"
            )
    return words


def _check_captions(captions: list[str]) -> list[str]:
    if isinstance(captions, str) or not all(isinstance(c, str) for c in captions):
        raise TypeError("captions must be a list of strings, one for each image")
    return captions
