"""Squeeze and scales: where each number goes, the laws, and the two image flows."""

from itertools import pairwise

import pytest
import torch

from lib.flows import ActNorm, AffineCoupling, Compose, Flow, Inverse, MultiScale, Squeeze
from lib.flows.builders import glow, realnvp_images
from lib.flows.linear import start
from lib.train import fit
from tests.flows.laws import Case, Laws, jacobians

F64 = torch.float64


def two_levels(C):
    last = ActNorm(2 * C, 2, 2)
    return MultiScale(Compose(ActNorm(C, 4, 4), Squeeze(), ActNorm(4 * C, 2, 2)), last)


SMALL = {"shape": lambda C: (C, 4, 4), "vmap": False, "second": False}


class TestMultiScale(Laws):
    CASES = {
        "squeeze": Case(
            lambda C: Inverse(Squeeze()), shape=lambda C: (C, 4, 2), sizes=(1, 2), vmap=True
        ),
        "unsqueeze": Case(lambda C: Squeeze(), shape=lambda C: (4 * C, 2, 2), sizes=(1, 2)),
        "two-levels": Case(two_levels, sizes=(1, 2, 3), **SMALL | {"second": True}),
        "glow": Case(lambda C: glow((C, 4, 4), 2, 1, 4), 0.1, sizes=(1, 3), **SMALL),
        "realnvp": Case(lambda C: realnvp_images((C, 4, 4), 2, 4, 1), 0.1, sizes=(1, 2), **SMALL),
        "glow-image-context": Case(
            lambda C: glow((C, 4, 4), 2, 1, 4, context_channels=2),
            0.1,
            sizes=(1, 2),
            context_shape=(2, 2, 2),
            **SMALL,
        ),
        "realnvp-label": Case(
            lambda C: realnvp_images((C, 4, 4), 2, 4, 1, context_channels=3),
            0.1,
            sizes=(1,),
            context=3,
            **SMALL,
        ),
    }


def test_squeeze_is_the_permutation_of_its_docstring(device):
    x = torch.randn(3, 2, 4, 6, device=device)
    z, logabsdet = Squeeze().to_base(x)
    assert z.shape == (3, 8, 2, 3) and (logabsdet == 0).all()
    for c in range(2):
        for i in range(2):
            for j in range(2):
                assert torch.equal(z[:, 4 * c + 2 * i + j], x[:, c, i::2, j::2])
    J = jacobians(Squeeze().to_base, x[:1].double())[0]
    assert ((J == 0) | (J == 1)).all() and (J.sum(0) == 1).all() and (J.sum(1) == 1).all()
    for bad, run in [(x[:, :, :3], Squeeze().to_base), (x, Squeeze().from_base)]:
        with pytest.raises(ValueError, match=r"Squeeze.* expected shape"):
            run(bad)


def test_each_level_acts_on_what_is_left(device):
    """By hand: the first level's early half is touched once, the rest twice."""
    f = two_levels(1).to(device, F64)
    with torch.no_grad():
        for p in f.parameters():
            p.normal_()
    x = torch.randn(3, 1, 4, 4, dtype=F64, device=device)
    first, last = f.levels
    h, log_first = first.to_base(x)
    z2, log_last = last.to_base(h[:, 2:])
    z, logabsdet = f.to_base(x)
    early, late = f.split(z)
    assert torch.equal(early, h[:, :2]) and torch.equal(late, z2)
    torch.testing.assert_close(logabsdet, log_first + log_last)
    assert torch.equal(f.join([early, late]), z) and z.shape == x.shape


@pytest.mark.parametrize("shape, levels", [((1, 28, 28), 3), ((3, 8, 8), 2), ((1, 8, 8), 1)])
def test_image_flows_have_the_right_shapes_and_start_finite(shape, levels, device):
    x = torch.rand(4, *shape, device=device)
    for f in (realnvp_images(shape, levels, 4, 1), glow(shape, min(levels, 2), 1, 4)):
        f.to(device)
        z = start(f, x)
        assert z.shape == x.shape and z.isfinite().all()
        torch.testing.assert_close(f.from_base(z)[0], x, atol=1e-4, rtol=1e-4)
        assert sum(p.numel() // len(x) for p in f.split(z)) == z[0].numel()


def test_what_one_coupling_leaves_the_next_one_moves():
    """Dinh et al. (2017), figure 3: masks of one kind alternate within a level."""
    torch.manual_seed(0)
    kinds = []
    for level in realnvp_images((2, 4, 4), 2, 4, 1).levels:
        couplings = [m for m in level.transforms if isinstance(m, AffineCoupling)]
        moved = []
        for m in couplings:
            for p in m.parameters():
                p.data.add_(torch.randn_like(p))
            x = torch.randn(1, *m.shape)
            moved.append(m.to_base(x)[0] != x)
        kinds += [moved[:3], moved[3:]] if len(moved) == 6 else [moved]
    assert [len(kind) for kind in kinds] == [3, 3, 4]
    assert all(torch.equal(a, ~b) for kind in kinds for a, b in pairwise(kind))


def test_a_pixel_far_away_can_matter(device):
    """All couplings together mix the whole image: no pixel's code depends on itself alone."""
    torch.manual_seed(0)
    for f in (realnvp_images((1, 4, 4), 2, 8, 1), glow((1, 4, 4), 2, 2, 8)):
        with torch.no_grad():
            for p in f.parameters():
                p.add_(0.2 * torch.randn_like(p))
        J = jacobians(f.double().to(device).to_base, torch.randn(1, 1, 4, 4, dtype=F64).to(device))
        assert (J != 0).double().mean() > 0.7


def test_super_resolution_and_labels_train_and_sample(device):
    torch.manual_seed(0)
    x = torch.randn(32, 1, 8, 8, device=device)
    small = torch.nn.functional.avg_pool2d(x, 2)
    label = torch.nn.functional.one_hot(torch.arange(32) % 10, 10).float().to(device)
    for build in (
        lambda c: glow((1, 8, 8), 2, 1, 4, context_channels=c),
        lambda c: realnvp_images((1, 8, 8), 2, 4, 1, context_channels=c),
    ):
        for context in (small, label):
            flow = Flow(build(context.shape[1]), 1, 8, 8).to(device)
            start(flow.transform, x, context)
            before = flow(x, context).mean().item()
            run = fit(flow, x, context=context, steps=8, batch_size=16, lr=1e-3, progress=False)
            for _ in run:
                pass
            assert flow(x, context).mean() < before
            assert flow.sample(32, context).shape == x.shape


def test_mistakes():
    for build, error, says in [
        (lambda: MultiScale(), TypeError, "takes transforms"),
        (lambda: MultiScale(torch.nn.Linear(2, 2)), TypeError, "takes transforms"),
        (lambda: glow((1, 28, 28), 3, 1, 4), ValueError, "divisible by 8"),
        (lambda: realnvp_images((28, 28)), ValueError, r"\(C, H, W\)"),
        (lambda: glow((1, 8, 8), 0, 1, 4), ValueError, "levels"),
        (lambda: realnvp_images((1, 8, 8), 0), ValueError, "levels"),
        (lambda: glow((1, 8, 8), 1, 0, 4), ValueError, "steps"),
    ]:
        with pytest.raises(error, match=says):
            build()
    assert Inverse(Squeeze()).to_base(torch.zeros(1, 4, 1, 1))[0].shape == (1, 1, 2, 2)
