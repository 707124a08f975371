"""Samplers with the exact score reach the data law; what each formula says at one step."""

import math
from functools import partial

import pytest
import torch

from lib.data.densities import two_gaussians
from lib.diffusion import (
    VP,
    Clipped,
    Denoiser,
    ExactDenoiser,
    SubVP,
    ancestral,
    corrected,
    dpm_solver,
    dpm_solver_multi,
    euler_maruyama,
    heun,
    ode_field,
    simulate,
)
from lib.metrics import sliced_wasserstein
from lib.ode import solve, solve_adaptive
from tests.diffusion.laws import (
    DETERMINISTIC,
    MIXTURE,
    SCHEDULES,
    STOCHASTIC,
    T_MIN,
    N,
    every_deterministic,
    every_schedule,
    every_stochastic,
    last,
    start,
)


def test_ddim_is_exact_for_one_point():
    """All data in one point: eps_hat is constant along a path, and one step of any length is right."""
    schedule, point = VP(), torch.tensor([[0.7, -1.2]], dtype=torch.float64)
    net = lambda x, t, c: point.expand(len(x), 2)
    step = ancestral(Denoiser(net, schedule, "x"), eta=0.0)
    eps = torch.randn(5, 2, dtype=torch.float64)
    x_t = schedule.alpha(0.9) * point + schedule.sigma(0.9) * eps
    want = schedule.alpha(0.2) * point + schedule.sigma(0.2) * eps
    torch.testing.assert_close(step(x_t, 0.9, 0.2), want)


@pytest.mark.parametrize("eta", [0.3, 0.7, 1.0])
def test_fresh_noise_of_a_generalised_step(eta):
    """Song, Meng and Ermon (2021), equation 12, with a fresh noise of ones and of zeros."""
    schedule, t, s = VP(), 0.9, 0.2
    x, eps = torch.randn(2, 5, 2, dtype=torch.float64)
    denoiser = Denoiser(lambda x_t, t, c: x, schedule, "x")
    x_t = schedule.alpha(t) * x + schedule.sigma(t) * eps
    alpha, sigma = schedule.alpha(t) / schedule.alpha(s), schedule.sigma(s)
    v = eta**2 * sigma**2 * (1 - (alpha * sigma / schedule.sigma(t)) ** 2)
    for fresh in (0.0, 1.0):
        got = ancestral(denoiser, eta=eta, noise=lambda x, k=fresh: torch.full_like(x, k))(
            x_t, t, s
        )
        want = schedule.alpha(s) * x + math.sqrt(sigma**2 - v) * eps + math.sqrt(v) * fresh
        torch.testing.assert_close(got, want)


def test_one_point_by_every_exponential_integrator():
    """The linear part of the flow is solved exactly, so these take one step of any length too."""
    schedule, point = VP(), torch.tensor([[0.7, -1.2]], dtype=torch.float64)
    denoiser = Denoiser(lambda x, t, c: point.expand(len(x), 2), schedule, "x")
    eps = torch.randn(5, 2, dtype=torch.float64)
    x_t = schedule.alpha(0.9) * point + schedule.sigma(0.9) * eps
    want = schedule.alpha(0.2) * point + schedule.sigma(0.2) * eps
    for make in (heun, dpm_solver, dpm_solver_multi):
        torch.testing.assert_close(last(make(denoiser), x_t, [0.9, 0.5, 0.2]), want)


@pytest.fixture(scope="module")
def floor():
    """Sliced Wasserstein distance of true samples from other true samples, the largest of 20."""
    torch.manual_seed(1)
    clouds = [MIXTURE.sample(N, dtype=torch.float64) for _ in range(40)]
    return 1.1 * max(distance(a, b) for a, b in zip(clouds[::2], clouds[1::2], strict=True))


def distance(a, b):
    return sliced_wasserstein(a, b, generator=torch.Generator().manual_seed(0))


SAMPLERS = {
    **{k: (make, 120) for k, make in STOCHASTIC.items()},
    **{k: (make, 120 if order == 1 else 30) for k, (make, order) in DETERMINISTIC.items()},
    "corrected": (lambda d: corrected(euler_maruyama(d), d, snr=0.1), 120),
}


@pytest.mark.parametrize("schedule", [VP(), SCHEDULES["ve"]], ids=["vp", "ve"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_reach_the_data_law(name, schedule, floor):
    make, steps = SAMPLERS[name]
    denoiser = ExactDenoiser(MIXTURE, schedule)
    ts = schedule.log_snr_times(steps, 1e-4)
    x = denoiser(last(make(denoiser), start(MIXTURE, schedule, N), ts), ts[-1])
    assert distance(x, MIXTURE.sample(N, dtype=torch.float64)) < floor


def test_the_corrector_moves_by_the_ratio_of_norms():
    """Song et al. (2021), algorithm 4: eps = 2 (r |z| / |g|)^2, then x + eps g + sqrt(2 eps) z."""
    x, z = torch.randn(2, 30, 2, dtype=torch.float64)
    denoiser, r = ExactDenoiser(MIXTURE, VP()), 0.2
    still = lambda x, t, s: x
    got = corrected(still, denoiser, snr=r, noise=lambda x: z)(x, 0.4, 0.3)
    g = denoiser.score(x, 0.3)
    eps = 2 * (r * z.norm(dim=1).mean() / g.norm(dim=1).mean()) ** 2
    torch.testing.assert_close(got, x + eps * g + (2 * eps).sqrt() * z)


def test_a_corrector_needs_a_score_to_measure_its_step_by():
    denoiser = Denoiser(lambda x, t, c: 0 * x, VP())
    still = lambda x, t, s: x
    with pytest.raises(ValueError, match="the score is 0 everywhere at t = 0.3"):
        corrected(still, denoiser)(torch.ones(3, 2), 0.4, 0.3)


def test_a_corrector_of_numbers(device):
    """States (B,) are as those of one column."""
    denoiser = Denoiser(lambda x, t, c: torch.tanh(x), VP())
    x, z = torch.randn(2, 30, device=device)
    step = lambda z: corrected(lambda x, t, s: x, denoiser, noise=lambda _: z)
    want = step(z[:, None])(x[:, None], 0.4, 0.3)[:, 0]
    torch.testing.assert_close(step(z)(x, 0.4, 0.3), want)


@pytest.mark.parametrize("lost", [0.03, 1.15])
def test_the_distance_sees_what_is_small(lost, floor):
    """A sixth of scale, or three percent of mass, is above the floor: the tests above can fail."""
    x, y = (MIXTURE.sample(N, dtype=torch.float64) for _ in range(2))
    if lost > 1:
        x = lost * x
    else:
        x[: int(lost * N)] = 4.0
    assert distance(x, y) > floor


@every_deterministic
def test_there_and_back(make, order):
    """Data to noise, and back, by the same step; the noise is that of the exact flow."""
    schedule = VP()
    denoiser = ExactDenoiser(MIXTURE, schedule)
    x = MIXTURE.sample(50, dtype=torch.float64)
    ts = schedule.log_snr_times(400, T_MIN)
    code = last(make(denoiser), x, ts[::-1])
    want = solve_adaptive(ode_field(denoiser), x, T_MIN, 1.0, rtol=1e-9, atol=1e-9).x
    tol = 0.05 if order == 1 else 2e-3
    torch.testing.assert_close(code, want, atol=tol, rtol=0)
    torch.testing.assert_close(last(make(denoiser), code, ts), x, atol=tol, rtol=0)


@every_stochastic
def test_noise_runs_one_way(make):
    step = make(ExactDenoiser(MIXTURE, VP()))
    with pytest.raises(ValueError, match="from noise to data"):
        list(simulate(step, torch.randn(3, 2), [0.1, 0.5]))


@every_deterministic
@pytest.mark.parametrize("predict", ["eps", "x", None])
def test_no_code_from_no_noise(make, order, predict):
    exact = ExactDenoiser(MIXTURE, VP())
    denoiser = Denoiser(lambda x, t, c: 0 * x, VP(), predict) if predict else exact
    with pytest.raises(ValueError, match="sigma is 0 at t = 0"):
        list(simulate(make(denoiser), torch.ones(1, 2), VP().times(4, 0.0)[::-1]))


def test_a_corrector_draws_noise_and_says_what_it_takes():
    denoiser = ExactDenoiser(MIXTURE, VP())
    up = [0.1, 0.5]
    with pytest.raises(ValueError, match="from noise to data"):
        list(simulate(corrected(heun(denoiser), denoiser), torch.randn(3, 2), up))
    assert list(simulate(corrected(heun(denoiser), denoiser, n=0), torch.randn(3, 2), up))
    with pytest.raises(ValueError, match="n must be at least 0"):
        corrected(heun(denoiser), denoiser, n=-1)
    with pytest.raises(ValueError, match="snr is a ratio above 0"):
        corrected(heun(denoiser), denoiser, snr=0.0)


def test_no_correction_without_noise():
    denoiser = ExactDenoiser(MIXTURE, VP())
    with pytest.raises(ValueError, match="sigma is 0 at t = 0"):
        list(
            simulate(corrected(ancestral(denoiser), denoiser), torch.ones(1, 2), VP().times(4, 0.0))
        )


class TestSteps:
    """What each formula says at one step."""

    denoiser = ExactDenoiser(MIXTURE, SubVP())

    def test_euler_maruyama(self):
        x, z = torch.randn(2, 6, 2, dtype=torch.float64)
        f, g2 = SubVP().sde(0.6)
        for churn in (0.0, 0.7, 1.0):
            step = euler_maruyama(self.denoiser, noise=lambda _: z, churn=churn)
            drift = f * x - (1 + churn**2) / 2 * g2 * self.denoiser.score(x, 0.6)
            want = x - 0.1 * drift + churn * (0.1 * g2) ** 0.5 * z
            torch.testing.assert_close(step(x, 0.6, 0.5), want)

    def test_ddpm_draws_from_the_posterior(self):
        """Mean and variance of q(x_s | x_t, x_hat) by completing the square, Ho et al. (2020) (7)."""
        x, z = torch.randn(2, 6, 2, dtype=torch.float64)
        schedule, (t, s) = VP(), (0.6, 0.5)
        denoiser = ExactDenoiser(MIXTURE, schedule)
        x_hat = denoiser(x, t)
        a_t, a_s = schedule.alpha(t), schedule.alpha(s)
        v_t, v_s = schedule.sigma(t) ** 2, schedule.sigma(s) ** 2
        forward = v_t - (a_t / a_s) ** 2 * v_s
        mean = (a_t / a_s * v_s * x + a_s * forward * x_hat) / v_t
        got = ancestral(denoiser, noise=lambda _: z)(x, t, s)
        torch.testing.assert_close(got, mean + (forward * v_s / v_t) ** 0.5 * z)
        got = ancestral(denoiser, large=True, noise=lambda _: z)(x, t, s)
        torch.testing.assert_close(got, mean + forward**0.5 * z)

    def test_no_noise_at_the_last_step(self):
        denoiser = ExactDenoiser(MIXTURE, VP())
        x = torch.randn(6, 2, dtype=torch.float64)
        for large in (False, True):
            got = ancestral(denoiser, large=large)(x, 0.1, 0.0)
            torch.testing.assert_close(got, denoiser(x, 0.1))

    def test_a_large_churn_follows_the_score_of_one_time(self):
        """The part that churn adds is Langevin dynamics: it leaves the law at time t alone."""
        f, g2 = SubVP().sde(0.6)
        x, z = torch.randn(2, 6, 2, dtype=torch.float64)
        with_, without = (
            euler_maruyama(self.denoiser, noise=lambda _: z, churn=c)(x, 0.6, 0.599)
            for c in (3.0, 0.0)
        )
        h = 9 * g2 * 0.001
        langevin = 0.5 * h * self.denoiser.score(x, 0.6) + h**0.5 * z
        torch.testing.assert_close(with_ - without, langevin)

    def test_bad_churn(self):
        with pytest.raises(ValueError, match="churn"):
            euler_maruyama(self.denoiser, churn=-1.0)


@pytest.mark.parametrize("predict", ["eps", "x", "v"])
@every_schedule
def test_mix_is_a_sum_of_both_answers(predict, schedule, device):
    net = lambda x, t, c: torch.tanh(2 * x) + t[:, None]
    denoiser = Denoiser(net, schedule, predict)
    x = torch.randn(7, 3, dtype=torch.float64, device=device)
    x_hat, eps_hat = denoiser.split(x, 0.4)
    want = 0.7 * x_hat - 1.9 * eps_hat
    torch.testing.assert_close(denoiser.mix(x, 0.4, 0.7, -1.9), want)
    times = torch.full((7,), 0.4, dtype=torch.float64, device=device)
    torch.testing.assert_close(denoiser.mix(x, times, 0.7, -1.9), want)
    assert (x_hat.requires_grad, want.shape) == (False, x.shape)


def test_gradients_through_steps():
    """Of what comes out, to the state and to the network's weights, against differences."""
    layer = torch.nn.Linear(2, 2).double()
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    for predict in ("eps", "x", "v"):
        denoiser = Denoiser(lambda x, t, c: torch.tanh(layer(x)), VP(), predict)
        for make in (ancestral, euler_maruyama):
            z = torch.randn(3, 2, dtype=torch.float64)
            step = make(denoiser, noise=lambda _, z=z: z)
            assert torch.autograd.gradcheck(lambda y, step=step: step(y, 0.6, 0.5), x)
        for make, _ in DETERMINISTIC.values():

            def two(y, step):
                return step(step(y, 0.6, 0.5), 0.5, 0.4)

            assert torch.autograd.gradcheck(partial(two, step=make(denoiser)), x)
            grads = torch.autograd.grad(two(x, make(denoiser)).sum(), layer.weight)[0]
            assert grads.abs().min() > 0


class TestSimulate:
    denoiser = ExactDenoiser(MIXTURE, VP())

    def run(self, seed, make=ancestral):
        torch.manual_seed(seed)
        return torch.stack(list(simulate(make(self.denoiser), torch.randn(5, 2), VP().times(6))))

    def test_one_state_for_each_step_and_one_result_for_each_seed(self):
        assert self.run(0).shape == (6, 5, 2)
        assert torch.equal(self.run(0), self.run(0))
        assert not torch.equal(self.run(0), self.run(1))

    def test_injected_noise_decides(self):
        draws = torch.randn(6, 5, 2)
        run = lambda source: last(
            ancestral(self.denoiser, noise=lambda _: next(source)), draws[0], VP().times(6)
        )
        assert torch.equal(run(iter(draws)), run(iter(draws)))
        assert not torch.equal(run(iter(draws)), run(iter(draws.flip(0))))

    def test_a_multistep_closure_serves_several_runs(self):
        step, x = dpm_solver_multi(self.denoiser), torch.randn(5, 2)
        first = last(step, x, VP().times(8))
        assert torch.equal(last(step, x, VP().times(8)), first)
        half = simulate(step, x, VP().times(8))  # left in the middle
        next(half), next(half)
        assert torch.equal(last(step, x, VP().times(8)), first)

    def test_a_multistep_closure_starts_afresh_where_its_past_is_no_past(self):
        """At another time, and after somebody has written into the state."""
        x, ts = torch.randn(5, 2), VP().times(4)
        step, alone = dpm_solver_multi(self.denoiser), dpm_solver_multi(self.denoiser)
        first = step(x, ts[0], ts[1])
        want = alone(first.clone(), ts[2], ts[3])
        assert torch.equal(step(first, ts[2], ts[3]), want)
        step = dpm_solver_multi(self.denoiser)
        first = step(x, ts[0], ts[1])
        first[:, 0] = 0.3
        assert torch.equal(step(first, ts[1], ts[2]), alone(first.clone(), ts[1], ts[2]))
        with torch.inference_mode():  # where torch does not count who writes
            step, again = dpm_solver_multi(self.denoiser), dpm_solver_multi(self.denoiser)
            first = step(x, ts[0], ts[1])
            whole = step(first, ts[1], ts[2])
            assert torch.equal(whole, again(again(x, ts[0], ts[1]), ts[1], ts[2]))
            whole[:, 0] = 0.3
            assert torch.equal(step(whole, ts[2], ts[3]), alone(whole.clone(), ts[2], ts[3]))

    @pytest.mark.parametrize("ts", [[0.5], [0.5, 0.5], [0.9, 0.5, 0.7], [0.1, 0.5, 0.3]])
    def test_bad_times(self, ts):
        with pytest.raises(ValueError, match="ts must be"):
            list(simulate(ancestral(self.denoiser, eta=0), torch.randn(3, 2), ts))

    @pytest.mark.parametrize("ts", [[1000, 500, 1], [1.0, 0.5, -0.1], [0.1, 0.5, 1.01]])
    def test_times_are_not_steps(self, ts):
        """Step k of a chain of T is at k / T; a schedule beyond 1 answers, and wrongly."""
        with pytest.raises(ValueError, match=r"times run in \[0, 1\].*k / T"):
            list(simulate(ancestral(self.denoiser, eta=0), torch.randn(3, 2), ts))

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_a_state_that_is_not_finite_stops(self, bad):
        def broken(x, t, s):
            return x + (bad if s < 0.5 else 0.0) * torch.tensor([[0.0, 1.0]])

        with pytest.raises(FloatingPointError, match=r"from t = 0.6 to 0.4"):
            list(simulate(broken, torch.ones(3, 2), [1.0, 0.6, 0.4, 0.2]))

    def test_a_large_finite_state_goes_on(self):
        """Its sum overflows, and that is no reason to stop."""
        x = torch.full((40, 2), 1e38)
        assert last(lambda x, t, s: x, x, [1.0, 0.5]).isfinite().all()

    def test_gradients_stay_on_in_the_caller(self):
        for _ in simulate(ancestral(self.denoiser), torch.randn(3, 2), VP().times(2)):
            assert torch.is_grad_enabled()

    @pytest.mark.parametrize("make", [dpm_solver, dpm_solver_multi])
    def test_exponential_integrators_need_noise_at_the_end(self, make):
        with pytest.raises(ValueError, match="small t above 0"):
            list(simulate(make(self.denoiser), torch.randn(3, 2), [1.0, 0.5, 0.0]))

    def test_heun_ends_at_the_data_with_ddim(self):
        x = torch.randn(4, 2, dtype=torch.float64)
        torch.testing.assert_close(heun(self.denoiser)(x, 0.2, 0.0), self.denoiser(x, 0.2))


@every_schedule
def test_ode_field_is_the_continuity_equation(schedule):
    """d p_t / dt + div(p_t v) = 0 with the mixture's own density, by autograd; not without the half."""
    x = 2 * torch.randn(40, 2, dtype=torch.float64)
    field = ode_field(ExactDenoiser(MIXTURE, schedule))
    t = torch.tensor(0.37, dtype=torch.float64)

    def p(t, x):
        return MIXTURE.noised(schedule.alpha(t), schedule.sigma(t)).log_prob(x).exp()

    by_time = torch.func.jvp(lambda t: p(t, x), (t,), (torch.ones_like(t),))[1]

    def residual(field):
        flux = lambda row: p(t, row[None])[0] * field(t, row[None])[0]
        divergence = torch.func.vmap(torch.func.jacrev(flux))(x).diagonal(dim1=1, dim2=2).sum(1)
        return (by_time + divergence).abs().max() / by_time.abs().max()

    assert residual(field) < 1e-8
    f, _ = schedule.sde(0.37)
    assert residual(lambda t, x: 2 * field(t, x) - f * x) > 1e-2  # g^2 for g^2 / 2


def test_ode_field_under_every_kind_of_derivative():
    field = ode_field(ExactDenoiser(MIXTURE, VP()))
    t, x = torch.tensor(0.3), torch.randn(4, 2, dtype=torch.float64)
    rows = torch.func.vmap(torch.func.jacrev(lambda r: field(t, r[None])[0]))(x)
    cols = torch.func.vmap(torch.func.jacfwd(lambda r: field(t, r[None])[0]))(x)
    torch.testing.assert_close(rows, cols)
    y = x.clone().requires_grad_()
    one = torch.autograd.grad(field(t, y)[:, 0].sum(), y)[0]
    torch.testing.assert_close(one, rows[:, 0])
    torch.testing.assert_close(rows, rows.mT)  # a gradient field: its Jacobian is symmetric


def test_any_solver_takes_the_field():
    schedule = VP()
    field, x = ode_field(ExactDenoiser(MIXTURE, schedule)), start(MIXTURE, schedule, 10)
    fine = solve(field, x, 1.0, T_MIN, 500, "rk4")
    adaptive = solve_adaptive(field, x, 1.0, T_MIN, rtol=1e-9, atol=1e-9).x
    torch.testing.assert_close(fine, adaptive, atol=1e-5, rtol=0)


def test_clipped_denoisers_pass_through_every_sampler():
    denoiser = Clipped(ExactDenoiser(MIXTURE, VP()), -0.5, 0.5)
    for make, steps in SAMPLERS.values():
        x = last(make(denoiser), torch.randn(20, 2), VP().times(min(steps, 20)))
        assert denoiser(x, T_MIN).abs().max() <= 0.5


@pytest.mark.parametrize("eta", [0.1, 0.5, 1.0])
def test_the_large_variance_follows_eta(eta):
    """With the exact guess the law is nearly the data's at every eta: what is kept and what is new fit."""
    torch.manual_seed(0)
    law, schedule = two_gaussians(), VP()
    step = ancestral(ExactDenoiser(law, schedule), eta=eta, large=True)
    ts = schedule.times(100)
    *_, x = simulate(step, torch.randn(20_000, 2) * schedule.sigma(ts[0]), ts)
    want = law.moments()[1].diagonal()
    torch.testing.assert_close(x.var(0), want.to(x), rtol=0.06, atol=0.0)


def test_more_fresh_noise_than_there_is_room_for_is_refused():
    schedule = VP()
    step = ancestral(ExactDenoiser(two_gaussians(), schedule), eta=3.0)
    with pytest.raises(ValueError, match="more fresh noise"):
        list(simulate(step, torch.randn(5, 2), schedule.times(10)))


def test_no_corrector_steps_need_no_noise():
    """n = 0 is the step itself, also where it ends without noise."""
    denoiser, x, ts = ExactDenoiser(two_gaussians(), VP()), torch.randn(5, 2), [1.0, 0.5, 0.0]
    plain = ancestral(denoiser, eta=0.0)
    *_, want = simulate(plain, x, ts)
    *_, got = simulate(corrected(plain, denoiser, n=0), x, ts)
    assert torch.equal(got, want)
