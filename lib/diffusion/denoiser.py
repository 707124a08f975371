"""The one thing that every diffusion model learns: what the clean example was, E[x | x_t].

x_t = alpha x + sigma eps. Whoever knows x_hat = E[x | x_t] knows eps_hat = E[eps | x_t] and the
score of p_t too: x_t = alpha x_hat + sigma eps_hat, and score = -eps_hat / sigma (Tweedie).
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from lib.data.densities import GaussianMixture
from lib.diffusion.chain import chain_times
from lib.diffusion.schedule import Schedule, Time
from lib.utils import check_batch, check_indices, expand_as_batch, full_precision, sum_dims


class BaseDenoiser(nn.Module):
    """x_t, t -> x_hat, with eps_hat and the score that follow. A subclass gives `split`.

    x_t is (B, ...); t a float, or a tensor of no dimensions or (B,). Guidance, clipping and exact
    answers are denoisers too, some of them around others, so that every sampler takes them all.

    >>> issubclass(Clipped, BaseDenoiser)
    True
    """

    schedule: Schedule

    def split(self, x_t: Tensor, t: Time, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x_hat and eps_hat with x_t = alpha x_hat + sigma eps_hat, by one call of the network."""
        raise NotImplementedError(f"{type(self).__name__} must define split(x_t, t, context)")

    def forward(self, x_t: Tensor, t: Time, context: Tensor | None = None) -> Tensor:
        """x_hat, the best guess of the clean example: (B, ...) -> (B, ...)."""
        return self.split(x_t, t, context)[0]

    def eps(self, x_t: Tensor, t: Time, context: Tensor | None = None) -> Tensor:
        """eps_hat, the best guess of the noise: (B, ...) -> (B, ...)."""
        return self.split(x_t, t, context)[1]

    def score(self, x_t: Tensor, t: Time, context: Tensor | None = None) -> Tensor:
        """grad log p_t(x_t) = -eps_hat / sigma: (B, ...) -> (B, ...)."""
        return self.eps(x_t, t, context) / -self.scales(x_t, t)[1]

    def mix(self, x_t: Tensor, t: Time, a: float, b: float, context=None) -> Tensor:
        """a x_hat + b eps_hat, a new tensor: all that a step of a sampler asks for. (B, ...)."""
        x_hat, eps_hat = self.split(x_t, t, context)
        # under autocast a guess may be coarser than the state, which is to keep its precision
        return (a * x_hat.to(x_t.dtype)).add_(eps_hat, alpha=b)

    def scales(self, x: Tensor, t: Time) -> tuple[Time, Time]:
        """alpha(t) and sigma(t), shaped to multiply x. Tensors are computed in float64."""
        if not isinstance(t, Tensor):
            return self.schedule.alpha(t), self.schedule.sigma(t)
        if t.ndim > 1 or (t.ndim == 1 and len(t) != len(x)):
            raise ValueError(
                f"t must be a number or one for each of the {len(x)} examples, got {tuple(t.shape)}"
            )
        wide = t if t.device.type == "mps" else t.double()  # a float32 t loses digits of sigma
        alpha, sigma = self.schedule.alpha(wide), self.schedule.sigma(wide)
        return expand_as_batch(alpha, x), expand_as_batch(sigma, x)


class Denoiser(BaseDenoiser):
    """A network in one of three costumes.

    Args:
        net: net(x, t, context) -> like x, t of shape (B,). Its input is x_t / sqrt(alpha^2 +
            sigma^2), of unit variance for data of unit variance whatever the schedule.
        predict: what the network's output means: "eps" the noise (Ho et al. 2020), "x" the clean
            example, or "v" = (alpha eps - sigma x) / sqrt(alpha^2 + sigma^2), which is neither hard
            at little noise nor at much (Salimans and Ho 2022, section 4).

    >>> from lib.diffusion import VP
    >>> Denoiser(lambda x, t, context: 0 * x, VP(), predict="x")(torch.ones(1, 2), 0.5)
    tensor([[0., 0.]])
    """

    def __init__(self, net: Callable, schedule: Schedule, predict: str = "eps"):
        super().__init__()
        if predict not in ("eps", "x", "v"):
            raise ValueError(f'predict must be "eps", "x" or "v", got {predict!r}')
        self.net, self.schedule, self.predict = net, schedule, predict

    def output(self, x_t: Tensor, t: Time, context: Tensor | None, norm: Time) -> Tensor:
        """What the network says about x_t, scaled to unit variance."""
        if isinstance(norm, Tensor) or abs(norm - 1) > 1e-12:
            x_t = x_t * norm
        return self.net(x_t, times(t, x_t), context)

    def mix(self, x_t, t, a, b, context=None):
        """By one pass over the data, from x_t and the output."""
        if isinstance(t, Tensor):
            return super().mix(x_t, t, a, b, context)
        norm, of_x, of_out = weights(self.schedule, self.predict, t, a, b)
        out = self.output(x_t, t, context, norm)
        return (of_x * x_t).add_(out, alpha=of_out)

    def split(self, x_t, t, context=None):
        alpha, sigma = self.scales(x_t, t)
        norm2 = 1 / (alpha * alpha + sigma * sigma)
        norm = norm2**0.5
        out = self.output(x_t, t, context, norm)
        if self.predict == "eps":
            return (x_t - sigma * out) / alpha, out
        if self.predict == "x":
            return out, (x_t - alpha * out) / sigma
        return (
            norm2 * alpha * x_t - norm * sigma * out,
            norm2 * sigma * x_t + norm * alpha * out,
        )


@lru_cache(10_000)  # a sampler asks for the same few again and again
def weights(schedule: Schedule, predict: str, t: float, a: float, b: float) -> tuple[float, ...]:
    """a x_hat + b eps_hat as weights of x_t and of the output; first the network's input scale.

    >>> from lib.diffusion import VP
    >>> weights(VP(), "x", 0.5, a=1.0, b=0.0)[1:]
    (0.0, 1.0)
    """
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    norm = (alpha * alpha + sigma * sigma) ** -0.5
    if predict == "eps":
        return norm, a / alpha, b - a / alpha * sigma
    if predict == "x":
        return norm, b / sigma, a - b / sigma * alpha
    return norm, norm * norm * (a * alpha + b * sigma), norm * (b * alpha - a * sigma)


def times(t: Time, x: Tensor) -> Tensor:
    """(B,) of x's precision, float32 at least, for a network: half's would blur 1000 steps.

    >>> times(0.3, torch.ones(2, 5))
    tensor([0.3000, 0.3000])
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    if not isinstance(t, Tensor):
        return torch.full((len(x),), t, dtype=dtype, device=x.device)
    return t.to(x.device, dtype).expand(len(x))


class ExactDenoiser(BaseDenoiser):
    """E[x | x_t] of a Gaussian mixture in closed form: the denoiser that no network can beat.

    With a context (B,) of component numbers (int64), the data are that component alone.

    >>> from lib.diffusion import VE
    >>> ExactDenoiser(GaussianMixture([1.0], [[0.0]], [[1.0]]), VE(0.5, 2.0))(torch.ones(1, 1), 0.5)
    tensor([[0.5000]])
    """

    def __init__(self, mixture: GaussianMixture, schedule: Schedule):
        super().__init__()
        self.mixture, self.schedule = mixture, schedule

    def split(self, x_t, t, context=None):
        with full_precision(x_t):  # exact, whatever autocast does to a network around it
            return self._split(x_t, t, context)

    def _split(self, x_t, t, context):
        alpha, sigma = self.scales(x_t, t)
        flat = [a.flatten() if isinstance(a, Tensor) and a.ndim else a for a in (alpha, sigma)]
        if context is None:
            x_hat = self.mixture.denoise(x_t, *flat)
        else:
            if context.shape != (len(x_t),):
                raise ValueError(
                    f"the context must hold one component for each of {len(x_t)} rows, "
                    f"got shape {tuple(context.shape)}"
                )
            check_indices(context, len(self.mixture.weights), "components")
            means = self.mixture.posterior(x_t, *flat).means  # (B, K, D)
            x_hat = means[torch.arange(len(x_t), device=x_t.device), context]
        return x_hat, (x_t - alpha * x_hat) / sigma


class Clipped(BaseDenoiser):
    """x_hat kept within [low, high]; eps_hat is what then remains of x_t, so that both still agree.

    Clipping x_hat alone and stepping with the old eps_hat is a common mistake.

    >>> from lib.diffusion import VP
    >>> Clipped(Denoiser(lambda x, t, context: 9 + x, VP(), "x"))(torch.ones(1, 1), 0.5)
    tensor([[1.]])
    """

    def __init__(self, denoiser: BaseDenoiser, low: float = -1.0, high: float = 1.0):
        super().__init__()
        self.denoiser, self.low, self.high = denoiser, low, high
        self.schedule = denoiser.schedule

    def split(self, x_t, t, context=None):
        x_hat = self.denoiser(x_t, t, context).clamp(self.low, self.high)
        alpha, sigma = self.scales(x_t, t)
        return x_hat, (x_t - alpha * x_hat) / sigma


def draw_times(n: int, t_min: float, like: Tensor) -> Tensor:
    """n times in (t_min, 1], one in each n-th of the interval, shuffled: less noise than n draws.

    Kingma et al. (2021), appendix I.1: u + k / n modulo 1 for one uniform u; each is uniform.
    On the device of `like` and in its precision, float32 at least: half's has fewer numbers.

    >>> (4 * draw_times(4, 0.0, torch.ones(()))).ceil().sort().values
    tensor([1., 2., 3., 4.])
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    u = torch.rand((), device=like.device, dtype=dtype)
    t = (u + torch.randperm(n, device=like.device).to(dtype) / n) % 1
    return 1 - (1 - t_min) * t


def denoising_loss(
    denoiser: BaseDenoiser,
    x: Tensor,
    context: Tensor | None = None,
    weight: str = "eps",
    t_min: float = 1e-3,
) -> Tensor:
    """Squared error of the denoiser at one random time for each example, per dimension: (B,).

    Args:
        weight: "eps", |eps - eps_hat|^2 / D, DDPM's simple loss (Ho et al. 2020, equation 14); "x",
            |x - x_hat|^2 / D; "v", their sum for alpha^2 + sigma^2 = 1, the error of v; or "elbo",
            -1/2 d log_snr/dt |x - x_hat|^2 SNR, whose mean over t is the diffusion part of -ELBO in
            nats (not divided by D; Kingma et al. 2021, equation 17).

    >>> from lib.diffusion import VP
    >>> denoising_loss(Denoiser(lambda x, t, c: 0 * x, VP(), "x"), 2 * torch.ones(2, 3), weight="x")
    tensor([4., 4.])
    """
    check_batch(x, context=context, finite=False)
    _check_t_min(t_min)
    if weight not in ("eps", "x", "v", "elbo"):
        raise ValueError(f'weight must be "eps", "x", "v" or "elbo", got {weight!r}')
    t = draw_times(len(x), t_min, x)
    alpha, sigma = denoiser.scales(x, t)
    eps = torch.randn_like(x)
    x_hat, eps_hat = denoiser.split(alpha * x + sigma * eps, t, context)
    if weight == "elbo":
        rate = denoiser.schedule.log_snr_rate(t.double()).to(x)
        return -0.5 * (1 - t_min) * rate * sum_dims((eps - eps_hat).square())
    error = x - x_hat if weight == "x" else eps - eps_hat
    if weight == "v":
        error = (alpha * error - sigma * (x - x_hat)) * (alpha**2 + sigma**2).rsqrt()
    return sum_dims(error.square()) / x.shape[1:].numel()


def _check_t_min(t_min: float) -> None:
    if not 0 <= t_min < 1:
        raise ValueError(f"t_min is a time in [0, 1), the least that is trained; got {t_min}")


class Diffusion(nn.Module):
    """A diffusion model of data of shape `shape`: calling it gives the training loss, (B,).

    Args:
        drop: the share of examples in training whose context is replaced by `null`, for
            classifier-free guidance (Ho and Salimans 2022, algorithm 1).

    >>> from lib.diffusion import VP
    >>> from lib.results.nets import VectorNet
    >>> model = Diffusion(Denoiser(VectorNet(2), VP()), 2)
    >>> model(torch.ones(5, 2)).shape, model.sample(3, steps=4).shape
    (torch.Size([5]), torch.Size([3, 2]))
    """

    def __init__(
        self,
        denoiser: BaseDenoiser,
        *shape: int,
        weight: str = "eps",
        t_min: float = 1e-3,
        drop: float = 0.0,
        null: Tensor | float | int | None = None,
    ):
        super().__init__()
        if not 0 <= drop <= 1 or (drop > 0 and null is None):
            raise ValueError(f"drop is a share in [0, 1] and needs `null`; got {drop}, {null}")
        _check_t_min(t_min)
        self.denoiser, self.shape = denoiser, shape
        self.weight, self.t_min, self.drop, self.null = weight, t_min, drop, null

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"x must have shape (B, {', '.join(map(str, self.shape))}), not {tuple(x.shape)}"
            )
        if context is not None and self.drop and self.training:
            gone = torch.rand(len(x), device=x.device) < self.drop
            null = torch.as_tensor(self.null, dtype=context.dtype, device=context.device)
            context = torch.where(expand_as_batch(gone, context) > 0, null, context)
        return denoising_loss(self.denoiser, x, context, self.weight, self.t_min)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        steps: int | Sequence[float] = 50,
        step: Callable | None = None,
        start: Tensor | None = None,
    ) -> Tensor:
        """n samples, (n, *shape), by DDPM's ancestral steps or those of another sampler `step`.

        steps: how many, of equal length down to t_min; or the times themselves, falling.
        start: the noise to start from, of unit variance, (n, *shape); fresh if left out.
        """
        from lib.diffusion.samplers import ancestral, simulate

        if start is None:
            like = next(self.parameters(), torch.empty(0))  # an exact denoiser has none
            start = like.new_empty(n, *self.shape).normal_()
        if tuple(start.shape) != (n, *self.shape):
            raise ValueError(f"start must have shape {(n, *self.shape)}, not {tuple(start.shape)}")
        schedule, step = self.denoiser.schedule, step or ancestral(self.denoiser, context)
        given = isinstance(steps, Sequence)
        ts = chain_times(steps) if given else schedule.times(steps, self.t_min)
        x = start * schedule.sigma(ts[0])
        if list(ts) != [1.0]:  # the chain of one step is its last guess
            *_, x = simulate(step, x, ts)
        return self.denoiser(x, ts[-1], context)
