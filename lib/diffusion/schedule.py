"""Noise schedules: how much signal and how much noise there is at time t.

x_t = alpha(t) x + sigma(t) eps with eps standard normal; t = 0 is data, t = 1 is noise. Everything
else (signal-to-noise ratio, the SDE) follows from these two functions. Nothing here is a tensor of
its own, so nothing has to move between devices.

Every method takes a float and returns floats (samplers use floats as coefficients: a hundred times
cheaper than tensors), or takes a tensor of times of any shape and returns tensors of that shape.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lib.utils import check_count

Time = float | Tensor


def _ops(t: Time):
    """`math` for a float, `torch` for a tensor: they share the names we need."""
    return torch if isinstance(t, Tensor) else math


def _with_rate(f: Callable[[Tensor], Tensor], t: Tensor) -> tuple[Tensor, Tensor]:
    """f(t) and df / dt at each time; reverse mode, because torch has expm1 forward in Python only."""
    value, pull = torch.func.vjp(f, t)
    return value, pull(torch.ones_like(value))[0]


class Schedule:
    """A subclass gives `alpha` and `sigma`; both are smooth on (0, 1) and sigma(t) > 0 there.

    (`Chain` has corners.)

    >>> [round(t, 3) for t in VP().log_snr_times(3)]
    [1.0, 0.604, 0.075, 0.001]
    """

    def __setattr__(self, name: str, value) -> None:
        if name in self.__dict__:
            raise AttributeError(
                f"a {type(self).__name__} is fixed once it is made, for samplers remember its "
                f"values: make another one with this {name}"
            )
        super().__setattr__(name, value)

    def alpha(self, t: Time) -> Time:
        """How much of the data is left: the mean of x_t given x is alpha(t) x."""
        raise NotImplementedError(f"{type(self).__name__} must define alpha(t)")

    def sigma(self, t: Time) -> Time:
        """The standard deviation of x_t given x."""
        raise NotImplementedError(f"{type(self).__name__} must define sigma(t)")

    def variance(self, t: Time) -> Time:
        """sigma(t)^2; without a square root where sigma has one, whose slope is infinite at 0."""
        return self.sigma(t) ** 2

    def log_snr(self, t: Time) -> Time:
        """log alpha(t)^2 / sigma(t)^2, the log signal-to-noise ratio; falls from data to noise."""
        ops = _ops(t)
        return 2 * (ops.log(self.alpha(t)) - ops.log(self.sigma(t)))

    def log_snr_rate(self, t: Time) -> Time:
        """d log_snr / dt, below zero, by automatic differentiation."""
        if not isinstance(t, Tensor):
            return self._rate(float(t))
        return _with_rate(self.log_snr, t)[1]

    def sde(self, t: Time) -> tuple[Time, Time]:
        """f(t) and g(t)^2 of dx = f x dt + g dw, the SDE with these marginals.

        f = d log alpha / dt and g^2 = d sigma^2 / dt - 2 f sigma^2, by automatic differentiation
        (Kingma et al. 2021, equation 20 of the appendix). Note that it is g *squared*.
        """
        if not isinstance(t, Tensor):
            return self._sde(float(t))
        f = _with_rate(lambda t: self.alpha(t).log(), t)[1]
        var, rate = _with_rate(self.variance, t)
        return f, rate - 2 * f * var

    def _sde(self, t: float) -> tuple[float, float]:
        return self._known("sde", t, lambda t: tuple(v.item() for v in self.sde(t)))

    def _rate(self, t: float) -> float:
        return self._known("rate", t, lambda t: self.log_snr_rate(t).item())

    def _known(self, what: str, t: float, find):
        """find(t) for a float, remembered: a sampler asks for the same few times again and again."""
        memory = self.__dict__.setdefault("_memory", {})
        if (what, t) not in memory:
            if len(memory) > 10_000:
                memory.clear()
            memory[what, t] = find(torch.tensor(t, dtype=torch.float64))
        return memory[what, t]

    def times(self, steps: int, t_min: float = 1e-3, t_max: float = 1.0) -> list[float]:
        """steps + 1 times from t_max down to t_min, equally spaced: what samplers walk along."""
        _check_span(steps, t_min, t_max)
        return [t_max + (t_min - t_max) * k / steps for k in range(steps)] + [t_min]

    def log_snr_times(self, steps: int, t_min: float = 1e-3, t_max: float = 1.0) -> list[float]:
        """steps + 1 times from t_max down to t_min, equally spaced in log_snr, by bisection.

        Exponential integrators are exact in log_snr, so their error is spread evenly by it
        (Lu et al. 2022, section 3.4).
        """
        _check_span(steps, t_min, t_max)
        if not self.sigma(t_min) > 0:
            raise ValueError(
                f"sigma is 0 at t = {t_min:.4g}, where log_snr is infinite: end at a small t above 0"
            )
        low, high = self.log_snr(t_max), self.log_snr(t_min)
        inner = [self.time_of(low + (high - low) * k / steps) for k in range(1, steps)]
        return [t_max, *inner, t_min]

    def time_of(self, log_snr: float) -> float:
        """The t in [0, 1] with this log_snr, to the last bits, by bisection.

        Raises:
            ValueError: there is none.
        """
        a, b = 0.0, 1.0
        for _ in range(60):
            t = 0.5 * (a + b)
            a, b = (t, b) if self.log_snr(t) > log_snr else (a, t)
        t = 0.5 * (a + b)
        # all steps to one side: an end, or beyond; a float32 of the end's own is near enough
        if (a == 0 or b == 1) and not abs(self.log_snr(t) - log_snr) < 1e-5:
            raise ValueError(
                f"no time of this {type(self).__name__} has log_snr = {log_snr:.6g}, "
                f"the nearest has {self.log_snr(t):.6g}"
            )
        return t


def _check_span(steps: int, t_min: float, t_max: float) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a whole number from 1, got {steps!r}")
    if not 0 <= t_min < t_max <= 1:
        raise ValueError(f"times run in [0, 1], t_min below t_max; got {t_min} and {t_max}")


class VP(Schedule):
    """Variance preserving with beta(t) linear, alpha^2 + sigma^2 = 1: DDPM's limit of many steps.

    beta(t) = beta_min + t (beta_max - beta_min) is the rate at which variance is replaced.
    Song et al. (2021), equations 11 and 29 and appendix C.

    >>> round(VP().alpha(0.5) ** 2 + VP().sigma(0.5) ** 2, 12)
    1.0
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0):
        if not 0 < beta_min <= beta_max < math.inf:
            raise ValueError(f"0 < beta_min <= beta_max is needed; got {beta_min}, {beta_max}")
        if beta_min + beta_max > 320:  # alpha(1) = exp(-(beta_min + beta_max) / 4)
            raise ValueError(
                f"beta_min + beta_max is at most 320, or alpha(1) is 0 in float32; got "
                f"{beta_min} and {beta_max}"
            )
        self.beta_min, self.beta_max = beta_min, beta_max

    def integral(self, t: Time) -> Time:
        """The integral of beta from 0 to t."""
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t * t

    def alpha(self, t: Time) -> Time:
        return _ops(t).exp(-0.5 * self.integral(t))

    def variance(self, t: Time) -> Time:
        return -_ops(t).expm1(-self.integral(t))  # 1 - exp would lose six digits near t = 0

    def sigma(self, t: Time) -> Time:
        return _ops(t).sqrt(self.variance(t))


class SubVP(VP):
    """Less noise than VP at the same alpha: sigma = 1 - alpha^2, which is VP's sigma squared.

    Song et al. (2021), equation 12 and appendix C.

    >>> SubVP().sigma(0.3) == VP().sigma(0.3) ** 2
    True
    """

    def variance(self, t: Time) -> Time:
        return self.sigma(t) ** 2

    def sigma(self, t: Time) -> Time:
        return -_ops(t).expm1(-self.integral(t))


class VE(Schedule):
    """Variance exploding: alpha = 1, and sigma grows geometrically from sigma_min to sigma_max.

    At t = 0 there is already noise of sigma_min, as in Song and Ermon (2019); Song et al. (2021),
    equation 30, in the form of their code. sigma_max should exceed the largest distance in the data.

    >>> round(VE(0.01, 1.0).sigma(0.5), 9)
    0.1
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0):
        if not 0 < sigma_min < sigma_max < math.inf:
            raise ValueError(f"0 < sigma_min < sigma_max is needed; got {sigma_min}, {sigma_max}")
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def alpha(self, t: Time) -> Time:
        return torch.ones_like(t) if isinstance(t, Tensor) else 1.0

    def sigma(self, t: Time) -> Time:
        return self.sigma_min * _ops(t).exp(t * math.log(self.sigma_max / self.sigma_min))


class Cosine(Schedule):
    """alpha = cos(u), sigma = sin(u), the angle u running evenly from a little above 0 to a little
    below pi / 2: the cosine schedule with the log signal-to-noise ratio kept within +-`limit`.

    Nichol and Dhariwal (2021), section 3.2; the limits as in Hoogeboom et al. (2023).

    >>> round(Cosine(15.0).log_snr(0.0), 9), round(abs(Cosine(15.0).log_snr(0.5)), 9)
    (15.0, 0.0)
    """

    def __init__(self, limit: float = 15.0):
        if not 0 < limit < math.inf:
            raise ValueError(f"limit is the largest |log_snr|, above 0; got {limit}")
        self.start = math.atan(math.exp(-0.5 * limit))  # log_snr = -2 log tan u
        self.width = math.pi / 2 - 2 * self.start

    def angle(self, t: Time) -> Time:
        return self.start + self.width * t

    def alpha(self, t: Time) -> Time:
        return _ops(t).cos(self.angle(t))

    def sigma(self, t: Time) -> Time:
        return _ops(t).sin(self.angle(t))


class Chain(Schedule):
    """DDPM's discrete chain of T = len(betas) steps: state k of the paper is at t = k / T.

    alpha(k / T)^2 is the product of the first k of (1 - beta), the paper's alpha-bar. Between two
    states log(alpha) is linear, which keeps alpha^2 + sigma^2 = 1. Ho et al. (2020), section 2.
    Its `sde` and `log_snr_rate` jump at k / T and are there those of the interval towards noise: fixed
    steps of a solver in t are of order 1 across them; samplers in alpha and sigma (`ancestral`,
    `heun`, `dpm_solver`) or adaptive steps do not mind.

    >>> chain = Chain([0.1, 0.2])
    >>> round(chain.alpha(1.0) ** 2, 9)
    0.72
    """

    def __init__(self, betas: Sequence[float]):
        betas = [float(b) for b in betas]
        if not betas or not all(0 < b < 1 for b in betas):
            raise ValueError("betas must be numbers strictly between 0 and 1, at least one")
        self.betas, self.steps = betas, len(betas)
        total, self.table = 0.0, [0.0]  # -log alpha at k / T
        for b in betas:
            total -= 0.5 * math.log1p(-b)
            self.table.append(total)
        self._nodes = torch.tensor(self.table, dtype=torch.float64)

    @classmethod
    def linear(cls, steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> "Chain":
        """DDPM's own choice, betas linear in the step."""
        return cls([first + (last - first) * k / max(steps - 1, 1) for k in range(steps)])

    @classmethod
    def of(cls, schedule: Schedule, steps: int) -> "Chain":
        """The chain that visits a variance-preserving schedule at k / T: same marginals there."""
        steps = check_count(steps, "steps")
        ts = [k / steps for k in range(steps + 1)]
        alphas = [schedule.alpha(t) for t in ts]
        total = [a * a + schedule.sigma(t) ** 2 for a, t in zip(alphas, ts, strict=True)]
        if abs(alphas[0] - 1) > 1e-3 or any(abs(v - 1) > 1e-6 for v in total[1:]):
            raise ValueError(f"{type(schedule).__name__} is not variance preserving from alpha = 1")
        alphas[0] = 1.0
        return cls([1 - (b / a) ** 2 for a, b in zip(alphas, alphas[1:], strict=False)])

    def _minus_log_alpha(self, t: Time) -> Time:
        if not isinstance(t, Tensor):
            place = min(max(t, 0.0), 1.0) * self.steps
            k = min(int(place + 1e-9), self.steps - 1)  # a state's own time may be a hair below k
            return self.table[k] + (place - k) * (self.table[k + 1] - self.table[k])
        nodes, place = self._nodes.to(t), t.clamp(0, 1) * self.steps
        k = (place.detach() + 1e-6).long().clamp_max(self.steps - 1)
        return nodes[k] + (place - k) * (nodes[k + 1] - nodes[k])

    def alpha(self, t: Time) -> Time:
        return _ops(t).exp(-self._minus_log_alpha(t))

    def variance(self, t: Time) -> Time:
        return -_ops(t).expm1(-2 * self._minus_log_alpha(t))

    def sigma(self, t: Time) -> Time:
        return _ops(t).sqrt(self.variance(t))
