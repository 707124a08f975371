"""Training, its interruptions, and what measures a trained model: from any data, of any number."""

import math
import pickle
import signal
import tempfile
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lib import recipe
from lib.data.densities import two_gaussians
from lib.diffusion import measures, obedience, shapes
from lib.diffusion.denoiser import Denoiser, Diffusion
from lib.diffusion.schedule import Cosine
from lib.flows import energy, recipes, recipes_ode
from lib.flows.builders import planar_flow
from lib.flows.elementwise import Affine
from lib.flows.flow import Flow
from lib.results import models, plane, run, training
from lib.results.protocol import Reading
from lib.train import catalogue, draws, loop, state, stopping, workers
from lib.unet import UNet
from lib.vae import compress, sweep
from lib.vae import recipes as vae_recipes
from tests.fuzz.kit import MODEST, batches, covers, few, finite, outcome, refused, same

CPU = torch.device("cpu")


class Middle(nn.Module):
    """The loss of each example is its squared distance from a learned point."""

    def __init__(self, D=2, dtype=torch.float32):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(D, dtype=dtype))

    def forward(self, x, context=None):
        y = x if context is None else x + context
        return (y - self.w).square().sum(1)


@covers(loop.fit, loop.Update, state.Run)
@given(
    batches((1.0, 0.0, 1e-30, 1e3, 1e12, 1e25), most=6),
    st.sampled_from([2, 0, 1, 3]),
    st.sampled_from([2, 0, 1, 5]),
    st.sampled_from([{}, {"ema": 0.5}, {"clip": 1.0}, {"parts": 2}, {"weight_decay": 0.1}]),
    st.booleans(),
)
def test_fit(batch, steps, size, how, beside):
    """So many finite steps, twice the same; or a refusal that leaves the weights finite."""
    x = batch.draw(2)
    c = batch.draw(2, salt=1) if beside else None

    def weights(**more):
        model = Middle(dtype=batch.dtype)
        settings = dict(steps=steps, batch_size=size, context=c, progress=False) | how | more
        seen = outcome(lambda: list(loop.fit(model, x, **settings)))
        finite(list(model.parameters()))
        if seen is not None:
            assert [u.step for u in seen] == list(range(1, steps + 1)) and not model.training
            assert all(math.isfinite(u.loss) and math.isfinite(u.grad_norm) for u in seen)
        return None if seen is None else model.w.detach()

    first = weights()
    if not (batch.rows and steps and size):
        assert first is None
    elif batch.scale <= 1e3:
        same(weights(), first, 0)
        assert weights(valid=x if c is None else (x, c), valid_every=1) is not None
    model = Middle(dtype=batch.dtype)
    for more in (
        {"clip": math.nan}, {"ema": 1.0}, {"schedule": "odd"}, {"amp": torch.float16},
        {"patience": 1}, {"checkpoint_every": 0}, {"parts": 0}, {"steps": 0},
    ):  # fmt: skip
        ask = dict(steps=1, progress=False) | more
        refused(lambda ask=ask: list(loop.fit(model, x, **ask)), ValueError)
    refused(lambda: loop.fit(model, x.long(), steps=1), TypeError)
    refused(lambda: loop.fit(model, x.numpy(), steps=1), TypeError)
    refused(lambda: loop.fit(model, x, steps=1, context=torch.ones(batch.rows + 1, 2)), ValueError)
    if batch.rows:
        refused(lambda: loop.fit(model, x * math.inf, steps=1), ValueError)
        refused(lambda: loop.fit(model, x.half(), steps=1), ValueError)
        refused(lambda: list(loop.fit(nn.Identity(), x, steps=1)), ValueError)


@covers(draws.Draws, draws.random_state, draws.set_random_state, draws.check_repeats)
@given(st.integers(1, 4), st.integers(0, 10_000))
def test_draws_repeat(n, seed):
    data = draws.Draws(lambda n, g: torch.randn(n, 2, generator=g), seed)
    at = draws.random_state(data, CPU)
    first, noise = data(n), torch.rand(3)
    kept = data.state_dict()
    second = data(n)
    draws.set_random_state(at, data, CPU)
    assert torch.equal(data(n), first) and torch.equal(torch.rand(3), noise)
    data.load_state_dict(kept)
    assert torch.equal(data(n), second)
    draws.check_repeats(data, n, CPU)
    draws.check_repeats(lambda n: torch.rand(n, 1), n, CPU)
    own = torch.Generator().manual_seed(seed)  # a state that nobody keeps
    hidden = lambda n: torch.rand(n, 1, generator=own)
    refused(lambda: draws.check_repeats(hidden, n, CPU), ValueError)


@covers(
    stopping.Stopped, stopping.Signals, stopping.memory_is_out, workers.Workers, workers.lost,
    workers.device_here, workers.joined,
)  # fmt: skip
@given(st.text(max_size=20), st.integers(-1, 4), st.sampled_from(stopping.NUMBERS))
def test_ends(text, n, number):
    """Errors of memory and of the network are told from others; a signal is kept for the loop."""
    assert stopping.memory_is_out(RuntimeError(text + " CUDA out of memory. " + text))
    assert workers.lost(RuntimeError(text + " [gloo] connection closed by peer"))
    for error in (ValueError("out of memory"), KeyError("gloo")):
        assert not stopping.memory_is_out(error) and not workers.lost(error)
    before = signal.getsignal(number)
    with stopping.Signals() as seen:
        assert seen.number == 0
        signal.raise_signal(number)
        assert seen.number == (0 if before == signal.SIG_IGN else number)  # a job behind `&`
        seen.acted = True
    assert signal.getsignal(number) == before
    stopped = stopping.Stopped(number, n, Path("run.pt"))
    assert stopped.signal == number and f"step {n}" in str(stopped)
    with workers.joined(CPU) as all_of_us:
        assert (all_of_us.size, all_of_us.rank, all_of_us.first) == (1, 0, True)
        if n < 1:
            refused(lambda: all_of_us.rows(n), ValueError)
        else:
            assert all_of_us.rows(n) == slice(0, n)
        assert torch.equal(all_of_us.total(torch.ones(2)), torch.ones(2))
        with all_of_us.noise(0, n, CPU), all_of_us.apart(nn.Linear(1, 1), True):
            pass
    assert workers.device_here("cpu") == CPU


@covers(catalogue.find, catalogue.standing, catalogue.table, catalogue.Entry, catalogue.Standing)
@few
@given(st.sampled_from(sorted(catalogue.ENTRIES)), st.randoms(), st.text(max_size=12))
def test_catalogue(name, random, text):
    """A recipe by its words in any order; any other text is refused, with names that are near."""
    parts = name.split("_")
    random.shuffle(parts)
    found = catalogue.find("-".join(parts).upper())
    assert sorted(found.split("_")) == sorted(parts)
    assert catalogue.find(name) == name
    if text.lower().replace("-", "_") not in catalogue.ENTRIES:
        got = outcome(lambda: catalogue.find(text))
        assert got is None or got in catalogue.ENTRIES
    at = catalogue.standing(name)
    assert at is None or (math.isfinite(at.value) and at.card["recipe"])
    assert name in catalogue.table() and callable(catalogue.ENTRIES[name].main)


@covers(
    recipe.train, recipe.settled, recipe.store, recipe.Recipe, recipe.Trained, recipe.Log,
    workers.has_bfloat16,
)  # fmt: skip
@few
@given(batches(MODEST, least=1, dtypes=(torch.float32,)), st.integers(1, 3))
def test_a_recipe_from_its_command_line(batch, steps):
    x = batch.draw(2)

    def tiny(steps: int = 2, seed: int = 0) -> recipe.Recipe:
        how = dict(steps=steps, seed=seed, valid=x, amp=torch.bfloat16)
        return recipe.Recipe(Middle(), x, how)

    refused(lambda: tiny(0).fit and list(loop.fit(Middle(), x, **tiny(0).fit)), ValueError)
    args = Namespace(mode="quick", batch_size=None, amp="fp32")
    quick = recipe.settled(tiny(), args, CPU)
    assert quick.fit["amp"] is None and quick.fit["batch_size"] <= 16
    assert workers.has_bfloat16(CPU) in (True, False)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOK_CACHE", folder)
        argv = ["--mode", "quick", "--device", "cpu", "--to", folder, "--steps", str(steps)]
        done = recipe.train({"tiny": tiny}, None, argv)
        assert done.quick and done.wall >= 0 and done.curve[-1][0] == steps
        path = recipe.store(done, "tests", "made up", {"loss": 1.0}, done.wall)
        assert path.is_file()
        with pytest.raises(SystemExit):
            recipe.train({"tiny": tiny}, None, ["other"])
        log = recipe.Log(Path(folder) / "a.pt")
        log.begin(1)
        log.add([1, 0.5], write=True)
        again = recipe.Log(Path(folder) / "a.pt")
        again.begin(2)
        assert again.rows[0]["point"] == [1, 0.5] and again.clock() >= log.rows[0]["clock"]


@covers(
    training.train, training.finish, training.weighted, training.Clock, training.Spent,
    training.Trained, models.trainer, models.Entry, run.rounded, plane.points, plane.flow_reading,
    plane.latent_reading, plane.plane_vae,
)  # fmt: skip
@few
@given(batches((1.0,), least=1), st.integers(1, 4), st.text(max_size=6))
def test_table_training(batch, n, text):
    draw = plane.points(batch.seed)
    assert draw(n).shape == (n, 2) and draw(n).dtype == torch.float32
    flow = Flow(Affine(2), 2)
    spent = training.train(flow, draw, 0.5, steps=4, batch_size=8)
    done = training.finish(flow, {"a": plane.flow_reading(flow)}, spent, training.Clock().spent(3))
    assert done.steps == 5 and done.parameters == 4 and not flow.training
    reading = done.readings["a"]
    assert isinstance(reading, Reading) and reading.draw(n).shape == (n, 2)
    finite(reading.nats(draw(n)))
    vae = plane.plane_vae(width=8).eval()
    with torch.no_grad():
        bound = plane.latent_reading(vae, draws=2, samples=5)
        finite([bound.nats(draw(n)), bound.tighter(draw(n)), bound.draw(n)])
    x = batch.draw(2)
    nats = lambda x: x.square().sum(1)
    same(training.weighted(nats, n)(x), nats(x), 10)  # all draws agree: nothing to weigh
    assert run.rounded(text) == text and run.rounded(n) == n
    assert math.isclose(run.rounded(x[0, 0].item()), x[0, 0].item(), rel_tol=1e-6)
    refused(lambda: models.trainer("cats", "vae"), ValueError)
    refused(lambda: models.trainer("plane", "none" + text), ValueError)
    maf = models.Entry(*models.MODELS["maf"])
    assert models.trainer("plane", maf.training) is plane.maf


@covers(energy.anneal)
@given(st.sampled_from([2, 0, 1, 3]), st.sampled_from([0.1, 1.0, 0.0, -1.0, 1.5, math.nan]))
def test_anneal(steps, start):
    model = energy.ReverseKL(Flow(planar_flow(2, 2), 2), energy.U1)
    anneal = lambda: list(
        energy.anneal(model, steps=steps, start=start, batch_size=4, progress=False)
    )
    if steps < 1 or not 0 < start <= 1:
        return refused(anneal, ValueError)
    assert len(anneal()) == steps and model.heat == 1


@covers(
    recipes.measure, recipes.Pixels, recipes_ode.measure_plane, recipes_ode.plane_flow,
    vae_recipes.measure, vae_recipes.measure_bound,
)  # fmt: skip
@few
@given(st.sampled_from([2, 0, 1, 3]), st.integers(0, 10_000))
def test_measures(n, seed):
    """Means over some examples, and no standard error from one of them."""
    torch.manual_seed(seed)
    pixels = recipes.Pixels("digits", flat=True)
    levels = pixels.part("test")[:n]
    flow = Flow(Affine(64), 64)
    read = lambda: recipes.measure(flow, levels, draws=2)
    refused(read, ValueError) if n < 2 else finite(torch.tensor(read()))
    assert pixels(3).shape == (3, 64) and pixels.held(most=2, copies=2).shape == (4, 64)
    on_plane = recipes_ode.plane_flow(8, 2, solver="rk4", steps=4)
    read = lambda: recipes_ode.measure_plane(on_plane, two_gaussians(), n)
    refused(read, ValueError) if n < 2 else finite(torch.tensor(list(read().values())))
    vae = plane.plane_vae(width=8)
    for f, how in ((vae_recipes.measure, {"samples": 5}), (vae_recipes.measure_bound, {"n": 2})):
        read = lambda f=f, how=how: f(vae, torch.randn(n, 2), **how)
        refused(read, ValueError) if n < 1 else finite(torch.tensor(list(read().values())))


@covers(
    compress.Rates, compress.images, sweep.Sweep, shapes.captioned, shapes.upright,
    measures.draw, measures.quality, measures.seconds_for, obedience.draw, shapes.share_right,
)  # fmt: skip
@few
@given(st.sampled_from([2, 0, 1]), st.integers(0, 10_000))
def test_pictures_of_models(n, seed):
    g = torch.Generator().manual_seed(seed)
    if n < 1:
        for f in (compress.images, shapes.captioned, shapes.upright, sweep.Sweep):
            refused(lambda f=f: f(n), ValueError)
    else:
        assert compress.images(n, g).shape == (n, 3, 32, 32)
        x, tokens = shapes.captioned(n, g)
        assert x.shape == (n, 3, 32, 32) and tokens.shape == (n, 19)
        assert shapes.upright(n, g)[1].shape == (n,)
        assert sweep.Sweep(n).elbo.shape == (n,) and compress.Rates().psnr.shape == (7,)
    torch.manual_seed(seed)
    net = UNet(1, width=8, multipliers=(1,), classes=10)
    model = Diffusion(Denoiser(net, Cosine(), "v"), 1, 8, 8, drop=0.1, null=net.null)
    labels = torch.arange(n)
    assert measures.draw(model, labels, steps=2).shape == (n, 1, 8, 8)
    real = torch.rand(6, 1, 8, 8, generator=g)
    scores = measures.quality(real, real.flip(0), "digits")
    assert scores["frechet"] < 1e-6 and scores["precision"] == scores["recall"] == 1
    begun = time.perf_counter()
    assert 0 < measures.seconds_for(model, 1, 1) < time.perf_counter() - begun
    refused(lambda: obedience.draw(model, []), ValueError)
    refused(lambda: shapes.share_right(model, 0), ValueError)


def test_what_is_excused_can_be_pickled():
    """Results of trainings travel between processes."""
    for made in (training.Spent(1.0, 2.0, 3), loop.Update(1, 0.5, None, 1.0, 0.1)):
        assert pickle.loads(pickle.dumps(made)) == made
