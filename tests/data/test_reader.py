"""Captions there and back, and the marks of the reader of attributes."""

import math

import pytest
import torch
from torch.nn.functional import avg_pool2d

from lib.data import attributes as names
from lib.data.captions import (
    LENGTH,
    VOCABULARY,
    caption,
    decode_captions,
    encode_captions,
    parse_captions,
)
from lib.data.reader import matches, read_attributes
from lib.data.shapes import FIELDS, from_labels, labels, sample, sample_attributes


def seed(device, k=0):
    return torch.Generator(device).manual_seed(k)


# Captions


def test_captions_say_what_is_shown():
    one = from_labels(torch.tensor([[0, 0, 0, 1, 1]]))
    assert caption(one) == ["a large red circle at the left on a dark background"]
    assert caption(one, say=("size", "colour", "background")) == [
        "a large red circle on a dark background"
    ]
    assert caption(one, say=()) == ["a circle"]
    two = from_labels(torch.tensor([[1, 1, 2, 0, 1, 2, 3, 0, 2]]))
    assert caption(two) == [
        "a small blue square at the left and a small yellow triangle at the right "
        "on a light background"
    ]


def test_captions_are_parsed_and_encoded_back(device):
    shown = labels(sample_attributes(500, seed(device), second=0.5))
    text = caption(shown)
    assert torch.equal(parse_captions(text, device), shown)
    tokens = encode_captions(text, device=device)
    assert tokens.shape == (500, LENGTH) and tokens.max() < len(VOCABULARY)
    assert decode_captions(tokens) == text and max(len(t.split()) for t in text) == LENGTH
    assert encode_captions([""]).sum() == 0
    assert parse_captions(["A red  circle"]).tolist() == [[-1, 0, 0, -1, -1, -1, -1, -1, -1]]
    swapped = parse_captions(["a circle at the right and a cross at the left"])
    assert swapped.tolist() == [[-1, 3, -1, -1, 1, 0, -1, -1, 2]]
    assert (parse_captions([""]) == -1).all()


# The reader


def spoil(x, sigma, blur):
    for _ in range(blur):
        x = avg_pool2d(torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return x + sigma * torch.randn_like(x)


@pytest.mark.parametrize("sigma, blur", [(0.0, 0), (0.05, 0), (0.0, 1), (0.05, 1)])
@pytest.mark.parametrize("size", [32, 64])
def test_the_reader_is_right(size, sigma, blur, device):
    x, a = sample(800 if size == 32 else 300, size, seed(device), second=0.4)
    read = read_attributes(spoil(x, sigma, blur))
    marks = torch.stack(list(matches(read, a).values())).nanmean(1)
    assert (marks >= (0.995 if not (sigma and blur) else 0.97)).all(), dict(
        zip(FIELDS, marks, strict=True)
    )
    assert ((labels(read)[:, 5] >= 0) == (a.second.shape >= 0)).float().mean() > 0.995
    if not sigma:
        right = read.shape == a.shape
        error = [(getattr(read, k) - getattr(a, k))[right].abs().max() for k in ("x", "y", "size")]
        assert max(error) * 32 < 0.5
        period = torch.tensor(names.SYMMETRY, device=device)[a.shape].clamp_min(1)
        turn = ((read.rotation - a.rotation + period / 2) % period - period / 2)[right]
        assert turn.abs().quantile(0.99) < math.radians(4)


def test_the_reader_takes_float64_and_half(device):
    x, a = sample(50, 32, seed(device))
    for dtype in (torch.float64, torch.float16):
        assert torch.equal(labels(read_attributes(x.to(dtype))), labels(a))


def test_the_reader_says_when_there_is_no_shape(device):
    x, a = sample(60, 32, seed(device))
    noise = [torch.rand_like(x), spoil(torch.full_like(x, 0.1), 0.05, 0), torch.zeros_like(x)]
    for bad in (*noise, x[:, :, torch.randperm(32, device=device)][..., torch.randperm(32)]):
        read = read_attributes(bad)
        unknown = read.shape == -1
        assert unknown.float().mean() > 0.9 and read.size[unknown].isnan().all()
        assert (labels(read)[unknown, 1:] == -1).all() and (read.confidence[unknown] < 0.5).all()
    assert (read_attributes(x).confidence > 0.9).all()
    grey = read_attributes(x * 0 + 0.5)
    assert (grey.background == -1).all() and (grey.shape == -1).all()


@pytest.mark.parametrize("ground", names.BACKGROUNDS)
@pytest.mark.parametrize("size", [16, 32, 64])
def test_an_empty_image_explains_nothing(ground, size, device):
    colour = torch.tensor(names.BACKGROUNDS[ground], device=device)
    read = read_attributes(colour[:, None, None].expand(2, 3, size, size))
    assert (read.confidence == 0).all() and (read.shape == -1).all()
    assert (read.background == list(names.BACKGROUNDS).index(ground)).all()


def test_matches_marks_only_what_was_wanted():
    x, a = sample(20, 32, colour="red")
    marks = matches(read_attributes(x), parse_captions(["a red circle"] * 20))
    assert (marks["colour"] == 1).all() and marks["size"].isnan().all()
    assert torch.equal(marks["shape"] == 1, a.shape == 0)


def test_errors_say_what_was_expected():
    a = sample_attributes(3)
    raises = lambda match, kind=ValueError: pytest.raises(kind, match=match)
    with raises("unknown word 'mauve'"):
        encode_captions(["a mauve circle"])
    with raises("cannot read 'red a circle'"):
        parse_captions(["red a circle"])
    with raises("list of strings", TypeError):
        parse_captions("a red circle")
    with raises("more than 4"):
        encode_captions(["a large red circle at the left"], 4)
    with raises("not 'weight'"):
        caption(a, say=("weight",))
    with raises("no known shape"):
        caption(a.replace(shape=-1))
    with raises(r"\(B, 3, S, S\)"):
        read_attributes(torch.rand(2, 1, 32, 32))
    with raises("NaN"):
        read_attributes(torch.full((2, 3, 32, 32), math.nan))


def test_the_reader_reads_float32_under_another_default(device):
    x, a = sample(20, 32, seed(device))
    old = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        read = read_attributes(x)
    finally:
        torch.set_default_dtype(old)
    assert torch.equal(labels(read), labels(a))
