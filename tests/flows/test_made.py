"""MADE: what each output sees, and filling in the coordinates with each unit computed once."""

import pytest
import torch
import torch.nn.functional as F

from lib.flows.made import MADE

# dim, outputs, width, depth, context: few units, many units, more coordinates than units
SIZES = [(1, 2, 4, 1, 0), (1, 2, 4, 2, 3), (2, 1, 5, 1, 0), (3, 2, 16, 3, 2), (6, 3, 4, 2, 0)]
SIZES += [(6, 2, 4, 2, 1), (33, 2, 64, 2, 0), (33, 1, 20, 1, 4)]
every = pytest.mark.parametrize("size", SIZES, ids=lambda s: "-".join(map(str, s)))


def make(size, device="cpu", **kwargs):
    D, k, width, depth, C = size
    order = torch.randperm(D).tolist()
    net = MADE(D, k, width, depth, C, order, **kwargs).to(device, torch.float64)
    x = torch.randn(5, D, dtype=torch.float64, device=device)
    return net, order, x, torch.randn(5, C, dtype=torch.float64, device=device) if C else None


@every
def test_an_output_sees_the_inputs_before_it_and_all_of_them(size, device):
    D, k, width, depth, C = size
    net, order, x, c = make(size, device, activation=F.silu)
    assert net(x, c).shape == (5, k * D)
    row = None if c is None else c[:1]
    jac = torch.autograd.functional.jacobian(lambda v: net(v[None], row)[0], x[0])
    sees = jac.view(k, D, D)[:, order][:, :, order] != 0  # both in the order of filling
    before = torch.ones(D, D, dtype=torch.bool, device=device).tril(-1)
    if width >= D:  # else some degrees have no unit, and an input waits for the next one
        assert (sees == before).all()
    else:
        assert not (sees & ~before).any() and sees[:, -1, :-1].any()


@every
def test_every_output_sees_the_context(size, device):
    D, k, width, depth, C = size
    if not C:
        pytest.skip("no context")
    net, _, x, c = make(size, device, activation=F.silu)
    jac = torch.autograd.functional.jacobian(lambda v: net(x[:1], v[None])[0], c[0])
    assert (jac != 0).all()  # the first coordinate's too, which sees nothing else


@every
def test_masks_are_products_of_paths(size):
    """A weight outside its mask does nothing; the product of the masks counts the paths."""
    D, k, width, depth, C = size
    net, order, x, c = make(size)
    assert [m.shape for m in net.masks()] == [layer.weight.shape for layer in net.layers]
    paths = net.masks()[0]
    for mask in net.masks()[1:]:
        paths = mask @ paths
    place = torch.argsort(torch.tensor(order))
    allowed = (place[:, None] > place).repeat(k, 1)
    assert not (paths[:, :D] > 0)[~allowed].any() and (paths[:, D:] > 0).all()
    want = net(x, c)
    with torch.no_grad():
        for layer, mask in zip(net.layers, net.masks(), strict=True):
            layer.weight.mul_(mask)
    torch.testing.assert_close(net(x, c), want, rtol=0, atol=0)


@every
def test_fill_is_d_passes(size, device):
    """x_i = a function of the outputs for i: after D passes every x_i is right."""
    D, k, width, depth, C = size
    net, order, _, c = make(size, device)
    seen = []

    def rule(p):  # (k, B, ...) -> (B, ...)
        return torch.sin(p.sum(0)) + p[0]

    def step(i, p):
        assert p.shape == (k, 5)
        seen.append(i)
        return rule(p)

    x = net.fill(step, 5, c)
    want = torch.zeros_like(x)
    for _ in range(D):
        want = rule(net(want, c).view(5, k, D).transpose(0, 1))
    torch.testing.assert_close(x, want, rtol=1e-12, atol=1e-12)
    assert seen == order
    got = torch.autograd.grad(x.sin().sum(), net.parameters(), allow_unused=True)
    want = torch.autograd.grad(want.sin().sum(), net.parameters(), allow_unused=True)
    for a, b, p in zip(got, want, net.parameters(), strict=True):
        a, b = (torch.zeros_like(p) if g is None else g for g in (a, b))
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_fill_computes_each_unit_once(device):
    """Counted in units for which the activation was called: D passes would count D times as many."""
    units = 0

    def activation(h):
        nonlocal units
        units += len(h)  # fill keeps (units, B)
        return F.relu(h)

    net = MADE(33, 2, 40, 2, 3, activation=activation).to(device)
    net.fill(lambda i, p: p[0], 5, torch.randn(5, 3, device=device))
    assert units == 2 * 40


def test_dropout_acts_in_training_only(device):
    net, _, x, _ = make((3, 2, 16, 2, 0), device, dropout=0.5)
    assert not torch.equal(net(x), net(x))
    net.eval()
    torch.testing.assert_close(net(x), net(x), rtol=0, atol=0)


def test_mistakes():
    for run, says in [
        (lambda: MADE(3, order=[0, 1, 1]), r"permutation of 0 ... 2, got \[0, 1, 1\]"),
        (lambda: MADE(0), "dim must be at least 1"),
        (lambda: MADE(2, depth=0), "depth must be at least 1"),
        (lambda: MADE(2, dropout=1.0), "dropout < 1, got 0 and 1.0"),
        (lambda: MADE(2, context=-1), "context >= 0"),
    ]:
        with pytest.raises(ValueError, match=says):
            run()
