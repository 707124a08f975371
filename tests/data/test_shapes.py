"""The generated shapes: geometry against closed forms, captions there and back, the reader's marks."""

import math

import pytest
import torch
from torch.testing import assert_close

from lib.data import attributes as names
from lib.data.captions import (
    LENGTH,
    caption,
    encode_captions,
    parse_captions,
)
from lib.data.reader import read_attributes
from lib.data.shapes import (
    BACKGROUNDS,
    COLOURS,
    SHAPES,
    Attributes,
    downsample,
    from_labels,
    labels,
    one_hot,
    render,
    sample,
    sample_attributes,
)

F64 = {"dtype": torch.float64}


def seed(device, k=0):
    return torch.Generator(device).manual_seed(k)


def cover(a: Attributes, size: int) -> torch.Tensor:
    """How much of each pixel is of the shape's colour, by the first channel that differs."""
    paint = torch.tensor(list(COLOURS.values())).to(a.size)[a.colour][:, :, None, None]
    ground = torch.tensor(list(BACKGROUNDS.values())).to(a.size)[a.background][:, :, None, None]
    way = paint - ground
    return ((render(a, size) - ground) * way).sum(1) / way.square().sum(1)


def centre(c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    line = (torch.arange(c.shape[1]).to(c) + 0.5) / c.shape[1]
    mass = c.sum((1, 2))
    return (c.sum(1) @ line) / mass, 1 - (c.sum(2) @ line) / mass


# Geometry


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size, far", [(32, 0.04), (64, 0.02), (256, 0.002)])
def test_area_and_centre_of_mass(shape, size, far, device):
    a = sample_attributes(100 if size < 100 else 30, seed(device), shape=shape, **F64)
    c = cover(a, size)
    area = c.mean((1, 2))
    assert_close(area, math.pi / 4 * a.size**2, rtol=far, atol=0.0)
    x, y = centre(c)  # in pixels a few hundredths
    assert ((x - a.x).abs() * size).max() < 0.08 and ((y - a.y).abs() * size).max() < 0.08


def test_shapes_have_their_own_form(device):
    """The distance to the farthest point, and the second moment, in units of the area."""
    polar = {"circle": 1 / (2 * math.pi), "square": 1 / 6, "triangle": 3**-1.5, "cross": 29 / 150}
    radius = {"circle": math.pi**-0.5, "square": 0.5**0.5, "triangle": 2 * 27**-0.25}
    radius["cross"] = 0.5**0.5  # (3/2, 1/2) in fifths of the area
    for shape in SHAPES:
        a = sample_attributes(20, seed(device), shape=shape, size="large", **F64)
        c, line = cover(a, 256), (torch.arange(256, device=device) + 0.5) / 256
        square = (line - a.x[:, None]).square()[:, None] + (1 - line - a.y[:, None]).square()[
            ..., None
        ]
        area = math.pi / 4 * a.size**2
        assert_close(
            (c * square).mean((1, 2)) / area**2, polar[shape] + 0 * area, rtol=3e-3, atol=0.0
        )
        far = (square * (c > 0.5)).amax((1, 2)).sqrt()
        assert_close(far / area.sqrt(), radius[shape] + 0 * area, rtol=0.03, atol=0.0)


def test_rotation_turns_counter_clockwise(device):
    """At rotation 0 a triangle points up; turned by 30 degrees, a corner points right."""
    a = sample_attributes(1, shape="triangle", device=device, **F64).replace(size=0.3, x=0.5, y=0.5)
    c = cover(a.replace(rotation=0.0), 101)[0]
    assert c[:50].sum(1).argmax() > 40  # it widens downwards
    assert_close(c, c.flip(1))
    right = cover(a.replace(rotation=math.pi / 6), 101)[0]
    assert_close(right, right.flip(0))
    assert (right[:, 51:] > 0.5).any(0).sum() > (right[:, :50] > 0.5).any(0).sum() + 5
    # And a general angle: rotation by a quarter turn is torch's rot90, which is counter-clockwise.
    for shape in range(4):
        b = a.replace(shape=shape, rotation=0.2)
        turned = cover(b.replace(rotation=0.2 + math.pi / 2), 101)
        assert_close(turned, cover(b, 101).rot90(1, (1, 2)), rtol=0, atol=1e-9)


def test_the_symmetry_angle_changes_nothing(device):
    a = sample_attributes(200, seed(device), **F64)
    angle = torch.tensor(names.SYMMETRY, device=device, **F64)[a.shape]
    same = render(a.replace(rotation=a.rotation + angle))
    assert_close(render(a), same, rtol=0, atol=1e-9)
    other = render(a.replace(rotation=a.rotation + angle / 2))
    moved = (other - render(a)).abs().amax((1, 2, 3))
    assert (moved[a.shape > 0] > 0.05).all() and (moved[a.shape == 0] == 0).all()
    assert (a.rotation[a.shape == 0] == 0).all() and (a.rotation <= angle).all()


def test_x_is_right_and_y_is_up(device):
    for place, rows, columns in [
        ("left", slice(0, 32), slice(0, 12)),
        ("top", slice(0, 12), slice(0, 32)),
    ]:
        a = sample_attributes(50, seed(device), position=place, size="small")
        c = cover(a, 32)
        assert (c[:, rows, columns].sum((1, 2)) > 0.3 * c.sum((1, 2))).all()
        other = c.flip(2) if place == "left" else c.flip(1)
        assert (other[:, rows, columns].sum((1, 2)) < 0.3 * c.sum((1, 2))).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_colours_are_exact_and_shapes_stay_inside(dtype, device):
    x, a = sample(300, 32, seed(device), dtype=dtype, second=0.5)
    assert x.dtype == dtype and x.device.type == device.type
    assert x.min() >= 0 and x.max() <= 1
    to = {"dtype": dtype, "device": device}
    ground = torch.tensor(list(BACKGROUNDS.values()), **to)[a.background][:, :, None]
    rim = torch.cat([x[:, :, 0], x[:, :, -1], x[:, :, :, 0], x[:, :, :, -1]], 2)
    assert torch.equal(rim, ground.expand_as(rim))
    paints = torch.tensor(list(COLOURS.values()), **to)
    for part in (a, a.second):
        on = (part.shape >= 0).nonzero()[:, 0]
        column = (part.x[on] * 32).long()
        row = ((1 - part.y[on]) * 32).long()
        assert torch.equal(x[on, :, row, column], paints[part.colour[on]])


def test_two_shapes_do_not_touch(device):
    a = sample_attributes(500, seed(device), second=1.0)
    first, second = cover(a.replace(second=None), 32), cover(a.second, 32)
    assert (torch.minimum(first, second) < 1e-6).all()
    both = render(a) != render(a.replace(second=None))
    assert torch.equal(both.any(1), second > 0)
    # Nor would two triangles, corner to corner, each blurred by a pixel of a 32nd.
    apart = torch.maximum((a.x - a.second.x).abs(), (a.y - a.second.y).abs())
    corner = 2 * 27**-0.25 * (math.pi / 4) ** 0.5
    assert (apart - corner * (a.size + a.second.size)).min() > 2 / 32
    assert set(map(tuple, labels(a)[:, [4, 8]].tolist())) == {(1, 2), (3, 4)}


# Sampling


def test_same_seed_same_images(device):
    one, two, other = (sample(70, 32, seed(device, k), second=0.5)[0] for k in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_classes_are_uniform_and_independent(device):
    n = 20_000
    found = labels(sample_attributes(n, seed(device)))
    assert (found[:, 5:] == -1).all()
    table = one_hot(found[:, :5], torch.float64)
    assert table.shape == (n, 18) and (table.sum(1) == 5).all()
    counts = [len(v) for v in names.NAMES.values()]
    share = torch.cat([torch.full((k,), 1 / k, **F64) for k in counts]).to(device)
    assert (table.mean(0) - share).abs().max() < 4 * 0.5 / n**0.5
    joint = table.T @ table / n
    block = torch.block_diag(*[torch.ones(k, k) for k in counts]).bool().to(device)
    assert (joint - share[:, None] * share)[~block].abs().max() < 4 * 0.5 / n**0.5


def test_labels_there_and_back(device):
    wanted = labels(sample_attributes(2000, seed(device), second=0.5))
    assert torch.equal(labels(from_labels(wanted, seed(device, 1))), wanted)
    part = wanted.where(torch.rand(wanted.shape, device=device) < 0.5, -1)
    part[:, 5:] = part[:, 5:].where(wanted[:, 5:6] < 0, wanted[:, 5:])
    part[:, 4] = wanted[:, 4]
    got = labels(from_labels(part))
    assert torch.equal(got.where(part >= 0, -1), part)
    assert (
        labels(sample_attributes(50, colour="red", shape="cross"))[:, 1:3].unique(dim=0)
        == torch.tensor([3, 0])
    ).all()


@pytest.mark.parametrize("n", [0, 1])
def test_small_batches(n, device):
    a = sample_attributes(3, device=device, second=1.0)[:n]
    x = render(a)
    assert x.shape == (n, 3, 32, 32) and labels(a).shape == (n, 9)
    read = read_attributes(x)
    assert len(read) == n and torch.equal(labels(read), labels(a))
    assert len(caption(a)) == n and parse_captions(caption(a)).shape == (n, 9)
    assert encode_captions(caption(a)).shape == (n, LENGTH)


def test_downsample_is_the_mean_of_blocks(device):
    x = torch.arange(32.0, device=device).reshape(1, 2, 4, 4)
    assert_close(downsample(x)[0, 0], torch.tensor([[2.5, 4.5], [10.5, 12.5]], device=device))
    a = sample_attributes(50, seed(device))
    assert (downsample(render(a, 64)) - render(a, 32)).abs().max() < 0.3
    with pytest.raises(ValueError, match="multiples of 3"):
        downsample(x, 3)


# Mistakes


def test_errors_say_what_was_expected():
    a = sample_attributes(3)
    raises = lambda match, kind=ValueError: pytest.raises(kind, match=match)
    with raises("colour must be one of red, .*, not 'mauve'"):
        sample_attributes(3, colour="mauve")
    with raises("no 'color'", TypeError):
        sample_attributes(3, color="red")
    with raises("both be small"):
        sample_attributes(3, second=1.0, size="large")
    with raises("left and right, or top and bottom"):
        sample_attributes(3, second=1.0, position="centre")
    with raises("n must be at least 1"):
        sample_attributes(0)
    with raises("unknown shape"):
        render(a.replace(shape=-1))
    with raises("int64", TypeError):
        from_labels(torch.zeros(2, 9))
    with raises(r"\(B, 9\) or \(B, 5\), not \(2, 4\)"):
        from_labels(torch.zeros(2, 4, dtype=torch.int64))
    with raises("label of colour goes from -1 to 4"):
        from_labels(torch.full((2, 9), 1).index_fill(1, torch.tensor([2]), 5))
    with raises("slice", TypeError):
        a[0]


def test_attributes_move_and_slice(device):
    a = sample_attributes(10, second=1.0).to(device, torch.float64)
    assert a.size.dtype == a.second.x.dtype == torch.float64 and a.shape.dtype == torch.int64
    assert len(a[2:5]) == len(a[2:5].second) == 3 and a.second.y.device.type == device.type
    assert torch.equal(render(a)[2:5], render(a[2:5]))
    like = torch.zeros(1, device=device, dtype=torch.float16)
    for b in (a.to(like), a.to(other=like), a.to(like, copy=True), a.second.to(like)):
        assert b.size.dtype == torch.float16 and b.size.device == like.device
        assert b.shape.dtype == b.colour.dtype == b.background.dtype == torch.int64
        assert b.shape.device == like.device


def test_a_second_shape_is_checked_too():
    shown = sample_attributes(4, torch.Generator().manual_seed(0), second=1.0)
    with pytest.raises(ValueError, match="unknown colour: it is -1 for some second shape"):
        render(shown.replace(second=shown.second.replace(colour=-1)))
    for wrong in (shown.replace(shape=7), shown.replace(second=shown.second.replace(shape=7))):
        with pytest.raises(ValueError, match="shapes go up to 3, got 7"):
            render(wrong)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("default", [torch.float32, torch.float64])
def test_images_have_the_attributes_precision(dtype, default, device, monkeypatch):
    """Whatever torch's default is; and half precision places its shapes as well as it can."""
    old = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        a = sample_attributes(20, seed(device), dtype=dtype)
        x = render(a)
    finally:
        torch.set_default_dtype(old)
    assert x.dtype == dtype
    assert_close(x.double(), render(a.to(torch.float64)), rtol=0, atol=0.02)
