"""Flows by name: how the layers are stacked. Each function returns one `Transform`.

model = Flow(realnvp(2), 2)
model = Flow(glow((1, 8, 8), levels=2, steps=4, width=32), 1, 8, 8)
"""

from collections.abc import Callable

from torch import Tensor, nn

from lib.flows.autoregressive import MaskedAutoregressive, SplineAutoregressive
from lib.flows.coupling import (
    AdditiveCoupling,
    AffineCoupling,
    SplineCoupling,
    alternating,
    channel_halves,
    checkerboard,
    halves,
)
from lib.flows.elementwise import Affine
from lib.flows.linear import ActNorm, Conv1x1
from lib.flows.multiscale import MultiScale, Squeeze
from lib.flows.planar import PlanarFlow
from lib.flows.radial import Radial
from lib.flows.sylvester import Sylvester
from lib.flows.transform import Compose, Inverse
from lib.nets import conv_net, mlp
from lib.utils import check_count

Mask = Callable[..., Tensor]


def relu() -> nn.Module:
    """In place: a quarter of the time of SiLU, which has second derivatives that a flow never needs.

    >>> relu()
    ReLU(inplace=True)
    """
    return nn.ReLU(inplace=True)


def _split(dim: int, k: int, mask: Mask) -> tuple[Tensor, int, int]:
    """The mask of layer k, whose halves change roles from layer to layer, and the halves' sizes."""
    if dim < 2:
        raise ValueError(f"a coupling needs at least 2 dimensions, got {dim}")
    m = mask(dim, flip=k % 2 == 1)
    return m, int(m.sum()), int((~m).sum())


def nice(dim: int, layers: int = 4, width: int = 128, depth: int = 2) -> Compose:
    """Additive couplings of odd and even coordinates, then one learned factor for each coordinate.

    Dinh et al. (2015). The map of (B, dim); at least three layers let each input act on each output.

    >>> len(nice(2, layers=4).transforms)
    5
    """
    parts = []
    for k in range(check_count(layers, "layers")):
        m, a, b = _split(dim, k, alternating)
        parts.append(AdditiveCoupling(m, mlp(a, b, width, depth, last=0.01)))
    return Compose(*parts, Affine(dim))


def realnvp(
    dim: int,
    layers: int = 8,
    width: int = 128,
    depth: int = 2,
    context: int = 0,
    mask: Mask = halves,
    limit: float = 3.0,
    activation: Callable[[], nn.Module] = relu,
    dropout: float = 0.0,
) -> Compose:
    """Affine couplings with exchanged roles, close to the identity at the start.

    Dinh et al. (2017), on vectors (B, dim). With `context` > 0 every network also sees a row of
    context, (B, context): labels as one-hot rows, or anything else.

    >>> realnvp(2, context=3).takes_context
    True
    """
    parts = []
    for k in range(check_count(layers, "layers")):
        m, a, b = _split(dim, k, mask)
        net = mlp(a + context, 2 * b, width, depth, activation, dropout, last=0.01)
        parts.append(AffineCoupling(m, net, limit, context))
    return Compose(*parts)


def spline_coupling(
    dim: int,
    layers: int = 4,
    width: int = 128,
    bins: int = 8,
    depth: int = 2,
    bound: float = 3.0,
    mask: Mask = halves,
    dropout: float = 0.0,
) -> Compose:
    """`layers` rational-quadratic spline couplings on [-bound, bound]. Durkan et al. (2019).

    Bring the data there first, by `ActNorm` or `Affine(dim).init_from(x)`.

    >>> len(spline_coupling(2, layers=3).transforms)
    3
    """
    parts = []
    check_count(bins, "bins")
    for k in range(check_count(layers, "layers")):
        m, a, b = _split(dim, k, mask)
        net = mlp(a, (3 * bins - 1) * b, width, depth, relu, dropout, last=0.01)
        parts.append(SplineCoupling(m, net, bins, bound))
    return Compose(*parts)


def _image_coupling(mask: Tensor, width: int, blocks: int, context: int, dropout: float):
    """An affine coupling of images, steered by residual convolutions."""
    channels = mask.shape[0]
    whole = bool((mask == mask[:, :1, :1]).all())
    a = int(mask[:, 0, 0].sum()) if whole else channels
    b = channels - a if whole else channels
    net = conv_net(a + context, 2 * b, width, blocks, dropout)
    return AffineCoupling(mask, net, context=context)


def glow(
    shape: tuple[int, int, int],
    levels: int,
    steps: int,
    width: int,
    context_channels: int = 0,
    blocks: int = 1,
    dropout: float = 0.0,
) -> MultiScale:
    """Each level: squeeze, then `steps` of actnorm, 1 x 1 convolution and affine coupling.

    Kingma and Dhariwal (2018), on images of `shape` (C, H, W), with residual networks. What leaves
    is normalised given what goes on, by one more coupling: the paper's learned prior. Call
    `lib.flows.linear.start(transform, batch)` before training.

    >>> len(glow((1, 8, 8), levels=2, steps=1, width=4).levels)
    2
    """
    C, H, W = _check_image(shape, check_count(levels, "levels"))
    parts, rest = [], (width, blocks, context_channels, dropout)
    for level in range(levels):
        C, H, W = 4 * C, H // 2, W // 2
        layers = [Squeeze()]
        for _ in range(check_count(steps, "steps")):
            mask = channel_halves(C, H, W)
            layers += [ActNorm(C, H, W), Conv1x1(C), _image_coupling(mask, *rest)]
        if level == levels - 1:
            layers += [ActNorm(C, H, W), Inverse(Squeeze())]
        else:  # the second half, which goes on, steers the first, which leaves
            layers += [ActNorm(C, H, W), _image_coupling(channel_halves(C, H, W, True), *rest)]
        parts.append(Compose(*layers))
        C //= 2
    return MultiScale(*parts)


def realnvp_images(
    shape: tuple[int, int, int],
    levels: int = 3,
    width: int = 32,
    blocks: int = 2,
    context_channels: int = 0,
    dropout: float = 0.0,
) -> MultiScale:
    """Each level: 3 checkerboard couplings, squeeze, 3 of channel halves; the last: 4 checkerboards.

    Dinh et al. (2017), section 3.6, on images of `shape` (C, H, W). Actnorm in front of each
    coupling stands for the paper's batch normalisation: call `lib.flows.linear.start(transform,
    batch)` before training. With `context_channels` the networks also see an image, of any size,
    or a row of labels.

    >>> len(realnvp_images((1, 8, 8), levels=2, width=4).levels)
    2
    """
    C, H, W = _check_image(shape, check_count(levels, "levels") - 1)
    parts, rest = [], (width, blocks, context_channels, dropout)
    for level in range(levels):
        last, layers = level == levels - 1, []
        for k in range(4 if last else 3):
            mask = checkerboard(C, H, W, flip=k % 2 == 1)
            layers += [ActNorm(C, H, W), _image_coupling(mask, *rest)]
        if not last:
            C, H, W = 4 * C, H // 2, W // 2
            layers.append(Squeeze())
            for k in range(3):
                mask = channel_halves(C, H, W, flip=k % 2 == 0)
                layers += [ActNorm(C, H, W), _image_coupling(mask, *rest)]
            C //= 2
        parts.append(Compose(*layers, *([ActNorm(C, H, W)] if last else [])))
    return MultiScale(*parts)


def _check_image(shape: tuple[int, int, int], squeezes: int) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ValueError(f"shape is (C, H, W) of one image, got {shape}")
    if shape[1] % 2**squeezes or shape[2] % 2**squeezes:
        raise ValueError(f"{squeezes} squeezes need sides divisible by {2**squeezes}, got {shape}")
    return shape


def planar_flow(dim: int, layers: int, context: int = 0) -> PlanarFlow:
    """`layers` planar maps, the first one next to the base. Rezende and Mohamed (2015).

    With `context` a linear layer of it gives all parameters: the posterior of a VAE,
    `VAE(..., posterior_flow=planar_flow(latent, 8, context=32))`.

    >>> planar_flow(2, layers=3).layers
    3
    """
    return PlanarFlow(dim, layers, context)


def radial_flow(dim: int, layers: int, context: int = 0) -> Compose:
    """`layers` radial maps. Rezende and Mohamed (2015), equation (14).

    >>> len(radial_flow(2, layers=3).transforms)
    3
    """
    return Compose(*(Radial(dim, context) for _ in range(check_count(layers, "layers"))))


def sylvester_flow(dim: int, layers: int, columns: int, context: int = 0) -> Compose:
    """`layers` maps of `columns` directions each, by Householder. van den Berg et al. (2018).

    >>> sylvester_flow(4, layers=1, columns=2).transforms[0].shape
    (4,)
    """
    check_count(layers, "layers")
    return Compose(*(Sylvester(dim, columns, context) for _ in range(layers)))


def _orders(dim: int, layers: int) -> list[list[int]]:
    """0 ... dim - 1 and its reverse, by turns: each coordinate comes early in every other layer."""
    return [list(range(dim))[:: 1 - 2 * (k % 2)] for k in range(check_count(layers, "layers"))]


def maf(
    dim: int, layers: int = 5, width: int = 128, depth: int = 2, context: int = 0, **kwargs
) -> Compose:
    """`layers` masked autoregressive maps with affine conditionals. Papamakarios et al. (2017).

    Density in one pass; sampling goes through the coordinates. `kwargs` are those of
    `MaskedAutoregressive` and `MADE`: limit, activation, dropout.

    >>> [f.net.order for f in maf(3, layers=2).transforms]
    [[0, 1, 2], [2, 1, 0]]
    """
    orders = _orders(dim, layers)
    return Compose(*(MaskedAutoregressive(dim, width, depth, context, o, **kwargs) for o in orders))


def iaf(
    dim: int, layers: int = 2, width: int = 128, depth: int = 2, context: int = 0, **kwargs
) -> Compose:
    """The same maps the other way round: one pass for samples and their density, which is all that
    the posterior of a VAE needs, `VAE(..., posterior_flow=iaf(latent, context=32))`.

    Kingma et al. (2016).

    >>> type(iaf(3).transforms[0]).__name__
    'Inverse'
    """
    maps = maf(dim, layers, width, depth, context, **kwargs).transforms
    return Compose(*(Inverse(f) for f in maps))


def spline_maf(
    dim: int,
    layers: int = 2,
    width: int = 128,
    bins: int = 8,
    depth: int = 2,
    context: int = 0,
    bound: float = 3.0,
    **kwargs,
) -> Compose:
    """`layers` autoregressive rational-quadratic splines on [-bound, bound]. Durkan et al. (2019).

    Bring the data there first: `Compose(Affine(dim).init_from(x), spline_maf(dim))`.

    >>> spline_maf(3, bins=4).transforms[0].bins
    4
    """
    more = dict(bins=bins, bound=bound, **kwargs)
    orders = _orders(dim, layers)
    return Compose(*(SplineAutoregressive(dim, width, depth, context, o, **more) for o in orders))
