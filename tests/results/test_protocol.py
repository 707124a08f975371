"""The harness of chapter 13: metrics against closed forms, and every model once, at almost no steps."""

import math
from types import SimpleNamespace

import pytest
import torch

from lib.data.densities import GaussianMixture, eight_gaussians
from lib.data.images import LEVELS, dequantise, digits
from lib.results import digits as on_digits
from lib.results import plane, protocol, store
from lib.results.models import MODELS, TRAININGS, trainer
from lib.results.run import run
from lib.results.training import train

F64 = torch.float64


def test_a_gaussian_in_the_plane_is_charged_its_divergence():
    """KL(p || N) = H(N) - H(p) for the moment-matched N: two entropies, no samples."""
    truth = eight_gaussians()
    mean, cov = truth.moments()
    matched = GaussianMixture([1.0], mean[None], cov)
    x = protocol.test_set("plane")[0]
    found = protocol.likelihood("plane", -matched.log_prob(x.double()))
    exact = 0.5 * torch.logdet(2 * math.pi * math.e * cov).item() - truth.entropy()
    assert abs(found["cost"] - exact) < 4 * found["cost_stderr"] < 0.06


def test_the_truth_is_charged_nothing_in_the_plane():
    x = protocol.test_set("plane")[0]
    found = protocol.likelihood("plane", -eight_gaussians().log_prob(x.double()))
    assert found["cost"] == pytest.approx(0, abs=1e-12)


def test_uniform_levels_cost_log2_of_their_number():
    nats = torch.full((360,), 64 * math.log(LEVELS["digits"]), dtype=F64)
    found = protocol.likelihood("digits", nats)
    assert found["cost"] == pytest.approx(math.log2(17)) and found["cost_stderr"] < 1e-12


def test_a_flow_of_digits_pays_for_its_preprocessing():
    """The reading against the density of the levels' cells written out: logit, Gaussian, log 17."""
    trained = on_digits.gaussian(0, 0.05)
    flow, levels = trained.module, digits("test")[0][:40]
    torch.manual_seed(3)
    got = on_digits.flow_reading(flow, draws=1).nats(levels)
    flow = flow.double()
    torch.manual_seed(3)
    x = dequantise(levels.flatten(1), 17).double()
    y = 0.05 + 0.9 * x
    z = torch.log(y / (1 - y))
    lower, upper = flow.transform.transforms[1].factors()
    law = torch.distributions.MultivariateNormal(
        flow.transform.transforms[1].shift, scale_tril=None, covariance_matrix=_square(lower, upper)
    )
    log_p = law.log_prob(z) + (0.9 / (y * (1 - y))).log().sum(1)
    torch.testing.assert_close(got.double(), -log_p + 64 * math.log(17), rtol=1e-5, atol=1e-3)


def _square(lower, upper):
    W = lower @ upper
    return W @ W.T


def test_a_perfect_sampler_has_distances_near_the_floor():
    x = protocol.real_samples("plane", 11)
    found = protocol.sample_quality("plane", x)
    assert abs(found["mmd"]) < 4 * found["mmd_stderr"]
    assert found["precision"] > 0.95 and found["recall"] > 0.95 and found["class_error"] < 0.08


def test_a_lost_component_is_seen_by_recall_and_class_shares_and_not_by_precision():
    law = eight_gaussians()
    seven = GaussianMixture([1 / 7] * 7, law.means[:7], law.covs[:7])
    draw = torch.Generator().manual_seed(4)
    found = protocol.sample_quality("plane", seven.sample(1_000, draw).float())
    assert found["precision"] > 0.95 and 0.8 < found["recall"] < 0.91
    assert found["class_error"] == pytest.approx(1 / 8, abs=0.04)


def test_samples_of_digits_are_whole_levels():
    with pytest.raises(ValueError, match="levels 0 .. 16"):
        protocol.check_levels(torch.rand(3, 1, 8, 8))
    with pytest.raises(ValueError, match="up to 17"):
        protocol.check_levels(torch.full((3, 1, 8, 8), 17, dtype=torch.uint8))


def test_kept_samples_come_back():
    levels = torch.randint(0, 17, (20, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(protocol.pictures("digits", protocol.kept("digits", levels)), levels)
    x = 3 * torch.randn(300, 2)
    back = protocol.pictures("plane", protocol.kept("plane", x))
    torch.testing.assert_close(back, x, rtol=0, atol=0.0051)


def test_scored_examples_and_real_samples_do_not_overlap():
    real, test = protocol.real_samples("digits", 0), protocol.test_set("digits")[0]
    assert real.shape == (1_000, 1, 8, 8) and len(test) == 360
    shared = {t.numpy().tobytes() for t in test} & {t.numpy().tobytes() for t in real}
    assert len(shared) < 3, "an image of the test part among those of the training part"


@pytest.mark.parametrize("training", TRAININGS)
def test_every_training_gives_its_rows_on_the_plane(training, monkeypatch):
    _cheap(monkeypatch)
    _whole(run("plane", training, 0, share=1e-3), training)


@pytest.mark.parametrize("training", ["gaussian", "vae", "planar", "diffusion", "latent"])
def test_trainings_give_their_rows_on_digits(training, monkeypatch):
    _cheap(monkeypatch)
    _whole(run("digits", training, 0, share=1e-3), training)


def _cheap(monkeypatch):
    """Few examples, few samples, short chains: what is tested is the way, not the numbers."""
    monkeypatch.setattr(protocol, "SCORED", {"digits": 360, "plane": 40})
    monkeypatch.setattr(protocol, "TEST", {"digits": 40, "plane": 40})
    monkeypatch.setattr(protocol, "SAMPLES", {"digits": 30, "plane": 30})
    digits_set = protocol.digits
    monkeypatch.setattr(protocol, "digits", lambda split: tuple(v[:40] for v in digits_set(split)))
    for module in (on_digits, plane):
        monkeypatch.setattr(module, "CHAIN", 6)
        monkeypatch.setattr(module, "QUICK", 3)


def _whole(rows, training):
    assert [r["model"] for r in rows] == [m for m, e in MODELS.items() if e.training == training]
    for row in rows:
        assert row.pop("drawn")
        if row["data"] == "digits":  # the mean of what each image costs is the row's cost
            images = torch.tensor(row.pop("images")).double() / 1_000
            assert images.mean().item() == pytest.approx(row["cost"], abs=1e-3)
        store.check_row(row)


def test_calls_of_the_network_are_counted(monkeypatch):
    _cheap(monkeypatch)
    readings = trainer("plane", "diffusion")(0, 1e-3).readings
    for name, calls in (("ddpm", 6), ("sde", 6), ("ode", 4)):
        readings[name].draw(5)
        assert readings[name].calls() == calls, name


def test_the_sde_bound_is_the_limit_of_the_chains(monkeypatch):
    """More steps, tighter bound; the SDE's is where they tend to."""
    from lib.diffusion import VP, Diffusion, ExactDenoiser
    from lib.diffusion.elbo import chain_elbo

    law = eight_gaussians()
    exact = ExactDenoiser(law, VP())
    exact.net = torch.nn.Identity()
    model = Diffusion(exact, 2)
    x = law.sample(400, torch.Generator().manual_seed(1))
    monkeypatch.setattr(plane, "CHAIN", 400)
    torch.manual_seed(0)
    found = {k: plane.diffusion_readings(model)[k].nats(x).mean() for k in ("ddpm", "sde")}
    rough = chain_elbo(exact, x, exact.schedule.log_snr_times(19, plane.LAST)).total.mean()
    truth = -law.log_prob(x).mean()
    assert truth - 0.1 < found["sde"] < found["ddpm"] + 0.05 < rough


def test_trainer_names_what_there_is():
    with pytest.raises(ValueError, match="digits, plane"):
        trainer("mnist", "vae")
    with pytest.raises(ValueError, match="data is one of"):
        protocol.test_set("mnist")


def test_the_averaged_copy_is_validated_at_the_full_weight_of_the_divergence():
    """While that of the model that is trained rises from 0 to 1 over the first half of the steps."""

    class Weighted(torch.nn.Module):
        """Its loss is the weight alone, whatever it has learnt."""

        def __init__(self):
            super().__init__()
            self.w, self.kl_weight = torch.nn.Parameter(torch.zeros(())), 1.0

        def forward(self, x, context=None):
            (trained if self.training else validated).append(float(self.kl_weight))
            return self.kl_weight + 0 * self.w * x[:, 0]

    trained, validated, model, x = [], [], Weighted(), torch.zeros(4, 1)
    settings = dict(steps=8, valid=x, valid_every=1, ema=0.9)
    train(model, x, warm_up=True, **settings)
    assert validated == [1.0] * 8
    assert trained == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]
    assert type(model.kl_weight) is float and model.kl_weight == 1.0


def test_the_clock_of_scoring_stops_before_the_truth_is_asked(monkeypatch):
    """Its log p costs most of a quick model's time, and is not the model's."""
    _cheap(monkeypatch)
    clock, truth = [0.0], protocol.likelihood

    def passes(seconds, value):
        clock[0] += seconds
        return value

    monkeypatch.setattr(protocol, "time", SimpleNamespace(process_time=lambda: clock[0]))
    monkeypatch.setattr(protocol, "likelihood", lambda *args: passes(100.0, truth(*args)))
    draw = lambda n: passes(2.0, protocol.real_samples("plane", 0)[:n])
    nats = lambda x: passes(3.0, torch.zeros(len(x)))
    found = protocol.measure("plane", protocol.Reading(nats, draw, lambda: 1, "exact", nats), 0)
    assert found["score_seconds"] * 40 == pytest.approx(3)
    assert found["sample_seconds"] * 30 == pytest.approx(2) == found["one_sample_seconds"]
