"""Flows by name: how the layers are stacked. Each function returns one `Transform`.

model = Flow(realnvp(2), 2)
model = Flow(glow((1, 8, 8), levels=2, steps=4), 1, 8, 8)
"""

from collections.abc import Callable

from torch import Tensor, nn

from lib.flows.coupling import AdditiveCoupling, AffineCoupling, alternating, halves
from lib.flows.elementwise import Affine
from lib.flows.planar import PlanarFlow
from lib.flows.radial import Radial
from lib.flows.sylvester import Sylvester
from lib.flows.transform import Compose
from lib.nets import mlp
from lib.utils import check_count

Mask = Callable[..., Tensor]


def _split(dim: int, k: int, mask: Mask) -> tuple[Tensor, int, int]:
    """The mask of layer k, whose halves change roles from layer to layer, and the halves' sizes."""
    if dim < 2:
        raise ValueError(f"a coupling needs at least 2 dimensions, got {dim}")
    m = mask(dim, flip=k % 2 == 1)
    return m, int(m.sum()), int((~m).sum())


def nice(dim: int, layers: int = 4, width: int = 128, depth: int = 2) -> Compose:
    """Additive couplings of odd and even coordinates, then one learned factor for each coordinate.

    Dinh et al. (2015). The map of (B, dim); at least three layers let each input act on each output.
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
    activation: Callable[[], nn.Module] = nn.SiLU,
    dropout: float = 0.0,
) -> Compose:
    """Affine couplings with exchanged roles, close to the identity at the start.

    Dinh et al. (2017), on vectors (B, dim). With `context` > 0 every network also sees a row of
    context, (B, context): labels as one-hot rows, or anything else.
    """
    parts = []
    for k in range(check_count(layers, "layers")):
        m, a, b = _split(dim, k, mask)
        net = mlp(a + context, 2 * b, width, depth, activation, dropout, last=0.01)
        parts.append(AffineCoupling(m, net, limit, context))
    return Compose(*parts)


def planar_flow(dim: int, layers: int, context: int = 0) -> PlanarFlow:
    """`layers` planar maps, the first one next to the base. Rezende and Mohamed (2015).

    With `context` a linear layer of it gives all parameters: the posterior of a VAE,
    `VAE(..., posterior_flow=planar_flow(latent, 8, context=32))`.
    """
    return PlanarFlow(dim, layers, context)


def radial_flow(dim: int, layers: int, context: int = 0) -> Compose:
    """`layers` radial maps. Rezende and Mohamed (2015), equation (14)."""
    return Compose(*(Radial(dim, context) for _ in range(check_count(layers, "layers"))))


def sylvester_flow(dim: int, layers: int, columns: int, context: int = 0) -> Compose:
    """`layers` maps of `columns` directions each, by Householder. van den Berg et al. (2018)."""
    check_count(layers, "layers")
    return Compose(*(Sylvester(dim, columns, context) for _ in range(layers)))
