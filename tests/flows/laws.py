"""What every transform must hold. A test file gives only its table:

    class TestCoupling(Laws):
        CASES = {"affine": Case(lambda D: AffineCoupling(...), loud=0.3), ...}

and pytest runs each test below for each case (and, where a test takes a D, for each of its sizes).
"""

import copy
import math
from collections.abc import Callable
from typing import NamedTuple
from zlib import crc32

import pytest
import torch

from lib.flows import Flow, Transform


class Case(NamedTuple):
    build: Callable[[int], Transform]  # for D dimensions
    loud: float | Callable[[int], float] = 0.7  # std of what is added to each parameter
    context: int = 0  # length of a row of context
    shape: Callable[[int], tuple[int, ...]] = lambda D: (D,)  # of one example
    sizes: tuple[int, ...] = (2, 3, 6, 33)
    context_shape: tuple[int, ...] | None = None  # of one example's context, if it is not a row
    onto: bool = True  # its data are all of R^D
    second: bool = True  # it has second derivatives, and they are worth the time
    vmap: bool = True  # it runs under torch.func.vmap
    fixed: bool = False  # it may be the identity, whatever its parameters
    mass: float = 1e-5  # how far the integral of its 2-D density over a grid may be from 1


class Laws:
    CASES: dict[str, Case] = {}

    def pytest_generate_tests(self, metafunc):
        names = metafunc.fixturenames
        if "D" in names:
            pairs = [(n, D) for n, case in self.CASES.items() for D in case.sizes]
            metafunc.parametrize("name, D", pairs, ids=[f"{n}-{D}" for n, D in pairs])
        elif "name" in names:
            metafunc.parametrize("name", self.CASES)
        if "dtype" in names:
            metafunc.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
        if "direction" in names:
            metafunc.parametrize("direction", ["to_base", "from_base"])

    def make(self, name, D=None, dtype=torch.float64, device="cpu", batch=7):
        """A loud transform, base points that its data side can represent, and a context or None."""
        case = self.CASES[name]
        D = D or self.smallest(name)
        generator = torch.Generator().manual_seed(crc32(f"{name}{D}".encode()))
        f = case.build(D)
        loud = case.loud(D) if callable(case.loud) else case.loud
        with torch.no_grad():  # fresh transforms are near the identity, which hides bugs
            for p in f.parameters():
                p.add_(loud * torch.randn(p.shape, generator=generator))
        z = torch.randn(batch, *case.shape(D), generator=generator, dtype=torch.float64)
        c = None
        if case.context or case.context_shape:
            shape = case.context_shape or (case.context,)
            c = torch.randn(batch, *shape, generator=generator, dtype=torch.float64)
            c = c.to(device, dtype)
        return f.to(device, dtype), z.to(device, dtype), c

    def smallest(self, name, least=3):
        """The size for tests that need only one: the smallest in which halves can differ."""
        sizes = self.CASES[name].sizes
        return min([D for D in sizes if D >= least] or sizes)

    def test_round_trip(self, name, D, dtype, device):
        f, z, c = self.make(name, D, dtype, device)
        x, logabsdet = f.from_base(z, c)
        back, logabsdet_back = f.to_base(x, c)
        tol = 1e-10 if dtype == torch.float64 else 1e-4
        assert x.shape[1:].numel() == z[0].numel() and back.shape == z.shape
        assert logabsdet.shape == logabsdet_back.shape == (len(z),)
        assert x.dtype == back.dtype == logabsdet.dtype == logabsdet_back.dtype == dtype
        torch.testing.assert_close(back, z, rtol=tol, atol=tol)
        n = z[0].numel()
        torch.testing.assert_close(logabsdet_back, -logabsdet, rtol=tol, atol=tol * n)
        loud = x.shape != z.shape or not torch.allclose(x, z, atol=1e-2)
        assert loud or self.CASES[name].fixed or D == 1

    def test_logabsdet_is_that_of_the_jacobian(self, name, D, direction, device):
        f, z, c = self.make(name, D, device=device, batch=3)
        x = z if direction == "from_base" else f.from_base(z, c)[0].detach()
        run = getattr(f, direction)
        want = torch.linalg.slogdet(jacobians(run, x, c)).logabsdet
        torch.testing.assert_close(run(x, c)[1], want, rtol=1e-9, atol=1e-9)

    def test_gradients_match_finite_differences(self, name, D, direction, device):
        """d/d(input, context, parameters) of a random function of both outputs."""
        f, z, c = self.make(name, D, device=device, batch=4)
        x = (z if direction == "from_base" else f.from_base(z, c)[0]).detach().requires_grad_()
        n = z[0].numel()
        drawn = lambda *shape: torch.randn(shape, dtype=x.dtype).to(device)  # off kinks, anywhere
        weights = drawn(4, n + 1)
        leaves = [x, *f.parameters()] + ([] if c is None else [c.requires_grad_()])
        steps = [drawn(*leaf.shape) for leaf in leaves]

        def value():
            out, logabsdet = getattr(f, direction)(x, c)
            return (weights * torch.cat([out.flatten(1), logabsdet[:, None].sin()], 1)).sum()

        def moved(h):
            with torch.no_grad():
                for leaf, step in zip(leaves, steps, strict=True):
                    leaf += h * step
                result = value().item()
                for leaf, step in zip(leaves, steps, strict=True):
                    leaf -= h * step
            return result

        grads = torch.autograd.grad(value(), leaves, allow_unused=True)
        got = sum((g * s).sum().item() for g, s in zip(grads, steps, strict=True) if g is not None)
        h = 1e-4 / n**0.5  # fourth-order central difference
        want = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
        assert got == pytest.approx(want, rel=1e-6, abs=1e-6)

    def test_second_derivatives(self, name, direction, device):
        """An inverse may be found by iteration; its curvature must survive that."""
        if not self.CASES[name].second:
            pytest.skip("its derivative is not continuous")
        f, z, c = self.make(name, self.smallest(name, 2), device=device, batch=3)
        x = (z if direction == "from_base" else f.from_base(z, c)[0]).detach().requires_grad_()
        run = getattr(f, direction)
        how = dict(atol=1e-5, rtol=1e-4, fast_mode=True)  # along random directions
        assert torch.autograd.gradgradcheck(lambda v: run(v, c), x, **how)

    def test_examples_do_not_mix_and_any_batch_works(self, name, device):
        f, z, c = self.make(name, device=device)

        def at(index):
            return f.from_base(z[index], None if c is None else c[index])

        x, logabsdet = at(slice(None))
        for n in (0, 1):
            some = at(slice(n))
            assert some[0].shape == (n, *x.shape[1:]) and some[1].shape == (n,)
            torch.testing.assert_close(some, (x[:n], logabsdet[:n]))
            assert f.to_base(x[:n], None if c is None else c[:n])[1].shape == (n,)
        strided = torch.stack([z, z], -1)[..., 0]
        assert not strided.is_contiguous()
        torch.testing.assert_close(f.from_base(strided, c), (x, logabsdet))
        order = torch.tensor([3, 0, 6, 2, 5, 1, 4], device=device)
        torch.testing.assert_close(at(order), (x[order], logabsdet[order]))

    def test_x_alone(self, name, device):
        """What a sample needs is the x of `from_base`, with its gradients."""
        f, z, c = self.make(name, device=device)
        leaves = [z.requires_grad_(), *f.parameters()]
        leaves += [] if c is None else [c.requires_grad_()]
        alone, x = f.x_from_base(z, c), f.from_base(z, c)[0]
        torch.testing.assert_close(alone, x, rtol=1e-6, atol=1e-6)
        got, want = (
            torch.autograd.grad(y.sin().sum(), leaves, materialize_grads=True) for y in (alone, x)
        )
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)

    def test_copies_and_state_dicts(self, name, device):
        f, z, c = self.make(name, device=device)
        want = f.from_base(z, c)  # a graph on the parameters must not stand in the way of a copy
        torch.testing.assert_close(copy.deepcopy(f).from_base(z, c), want)
        torch.manual_seed(1)  # another start
        fresh = self.CASES[name].build(self.smallest(name)).to(device, torch.float64)
        fresh.load_state_dict(f.state_dict())
        torch.testing.assert_close(fresh.from_base(z, c), want)

    def test_vmap(self, name, device):
        if not self.CASES[name].vmap:
            pytest.skip("asks for values on the way")
        f, z, c = self.make(name, device=device)
        if c is None:
            jac = torch.func.vmap(torch.func.jacrev(lambda v: f.from_base(v[None])[0][0]))(z)
        else:
            one = torch.func.jacrev(lambda v, row: f.from_base(v[None], row[None])[0][0])
            jac = torch.func.vmap(one)(z, c)
        n = z[0].numel()
        torch.testing.assert_close(jac.reshape(len(z), n, n), jacobians(f.from_base, z, c))

    def test_density_integrates_to_one(self, name, device):
        case = self.CASES[name]
        sizes = [D for D in (1, 2) if D in case.sizes and case.shape(D) == (D,)]
        if not case.onto or not sizes:
            pytest.skip("no 2-D case")
        for D in sizes:
            f, z, c = self.make(name, D, device=device, batch=4000)
            c = None if c is None else c[:1]
            flow = Flow(f, D)
            with torch.no_grad():
                x = f.from_base(2 * z, None if c is None else c.expand(len(z), -1))[0]
                low, high = x.min(0).values, x.max(0).values  # a box that holds the mass
                n = 4001 if D == 1 else 401
                box = zip(low.tolist(), high.tolist(), strict=True)
                axes = [torch.linspace(a, b, n, dtype=x.dtype, device=device) for a, b in box]
                grid = torch.cartesian_prod(*axes).view(-1, D)
                cell = math.prod(float(a[1] - a[0]) for a in axes)
                mass = 0.0
                for part in grid.split(20_000):
                    row = None if c is None else c.expand(len(part), -1)
                    mass += flow.log_prob(part, row).exp().sum().item() * cell
            assert abs(mass - 1) < case.mass

    def test_context(self, name, device):
        """One that is not wanted, one that is missing, one that matters."""
        f, z, c = self.make(name, device=device)
        runs = (f.to_base, f.from_base, Flow(f, *z.shape[1:]).log_prob)
        if c is None:
            for run in runs:
                with pytest.raises(ValueError, match="takes no context, got one of shape"):
                    run(z, z[:, :1])
            return
        assert not torch.allclose(f.from_base(z, c)[0], f.from_base(z, 2 * c)[0], atol=1e-3)
        for run in runs:
            with pytest.raises(ValueError, match="needs a context"):
                run(z)
            with pytest.raises(ValueError, match="one row"):
                run(z, c[:-1])

    def test_wrong_input(self, name, device):
        f, z, c = self.make(name, device=device)
        bads = [
            (z[:, 0], ValueError, r"expected shape \(B, .*\), got \("),
            (z.long(), TypeError, "must be floating point, not torch.int64"),
            (z.cpu().numpy(), TypeError, "must be a torch.Tensor, not ndarray"),
        ]
        if f.shape is not None:
            want = ", ".join(map(str, f.shape))
            bads.append((z[:, :-1], ValueError, rf"expected shape \(B, {want}\), got \(7, "))
        if next(f.parameters(), None) is not None and (f.shape is not None or z.ndim == 2):
            says = "has torch.float64 parameters, its input is torch.float32"
            bads.append((z.float(), TypeError, says))
            bads.append((z.to("meta"), ValueError, "its input on meta"))
        for bad, error, says in bads:
            for run in (f.to_base, f.from_base):
                with pytest.raises(error, match=says):
                    run(bad, c)


def jacobians(f, x, c=None):
    """(B, n, n), one example at a time, so that a map which mixes examples is caught."""
    jac, n = torch.autograd.functional.jacobian, x[0].numel()

    def one(i):
        row = None if c is None else c[i : i + 1]
        return jac(lambda v: f(v[None], row)[0][0], x[i]).reshape(n, n)

    return torch.stack([one(i) for i in range(len(x))])
