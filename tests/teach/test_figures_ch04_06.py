"""The explorable figures of chapters 4, 5 and 6 tell the truth: their numbers against lib, autograd and quadrature."""

import math

import numpy as np
import pytest
import torch

from lib import weights
from lib.data.densities import moons
from lib.flows.made import MADE
from lib.flows.moons import NAME, Near, first_layers, moons_flow
from lib.flows.multiscale import MultiScale, Squeeze
from lib.flows.planar import Planar
from lib.teach.figures import ch04, ch05, ch06


def item(scene, panel: int, name: str) -> dict:
    """The item of that name in a panel."""
    (found,) = [i for i in scene.panels[panel].spec["items"] if i.get("name", "").startswith(name)]
    return found


# ---- chapter 6: one planar layer ----------------------------------------------------------------
def planar(w, u, b, constrain):
    flow = Planar(2, constrain=constrain).double()
    with torch.no_grad():
        for p, v in ((flow.w, w), (flow.u, u), (flow.b, b)):
            p.copy_(torch.tensor(v))
    return flow


@pytest.mark.parametrize("u, enforce", [((1.4, -0.3), False), ((-0.4, -0.2), False), ((-2.0, 0.2), True)])  # fmt: skip
def test_the_density_of_one_planar_layer_is_lib_s(u, enforce):
    w, b = (1.5, 1.0), 0.3
    flow = planar(w, u, b, enforce)
    x = torch.randn(500, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
    with torch.no_grad():
        z, logabsdet = flow.to_base(x)
        want = (-0.5 * z.square().sum(1) - math.log(2 * math.pi) + logabsdet).exp()
        used = flow.layer()[1].numpy()
    got = ch06.image_density(*x.T.numpy(), np.array(w), used, b)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-9)
    scene = ch06.layer().scene(u1=u[0], u2=u[1], use=ch06.HAT if enforce else ch06.PLAIN)
    assert scene.readouts["w.u used"] == f"{flow.condition():.3f}"
    assert scene.readouts["w.u"] == f"{w[0] * u[0] + w[1] * u[1]:.2f}"
    assert scene.readouts["invertible"] == "yes"


def test_a_folded_plane_has_the_density_of_its_points():
    w, u, b = (1.5, 1.0), (-2.0, 0.2), 0.3
    flow = planar(w, u, b, False)
    z = torch.randn(400_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        x = flow.from_base(z)[0].numpy()
    edges = np.linspace(-2.5, 2.5, 11)
    count = np.histogram2d(x[:, 0], x[:, 1], bins=[edges, edges])[0]
    fine = np.linspace(-2.5, 2.5, 2001)[:-1] + 0.00125  # 200 x 200 points in each cell
    mass = ch06.image_density(*np.meshgrid(fine, fine, indexing="ij"), np.array(w), np.array(u), b)
    mass = mass.reshape(10, 200, 10, 200).sum((1, 3)) * 0.0025**2
    np.testing.assert_allclose(count / len(x), mass, atol=5 * math.sqrt(mass.max() / len(x)) + 2e-4)


def test_three_points_share_one_image_where_the_plane_folds_and_the_words_change():
    figure = ch06.layer()
    fold, rise = figure.scene(u1=-2.0, u2=0.2), figure.scene()
    assert fold.readouts["invertible"] == "no: folds over" and "three z" in fold.alt
    assert rise.readouts["invertible"] == "yes" and "nvertible" in rise.alt
    roots = np.array(item(fold, 2, "three s")["x"])
    assert np.allclose(roots - 2.8 * np.tanh(roots), 0, atol=1e-4)
    assert len(set(roots)) == 3
    curve = np.array(item(fold, 2, "t = s + ")["y"])
    assert (np.diff(curve) < 0).any()
    assert (np.diff(item(rise, 2, "t = s + ")["y"]) > 0).all()


def test_the_smallest_slope_is_the_smallest_over_the_plane():
    figure = ch06.layer()
    for u1 in (-2.0, -0.6, 1.4):
        z = torch.rand(20_000, 2, dtype=torch.float64) * 12 - 6
        with torch.no_grad():
            slope = planar((1.5, 1.0), (u1, -0.3), 0.3, False).from_base(z)[1].exp()
        signed = float(figure.scene(u1=u1, u2=-0.3).readouts["smallest det"])
        if signed > 0:
            assert signed == pytest.approx(float(slope.min()), abs=0.01)
        else:
            assert -signed <= float(slope.max()) + 0.01


@pytest.mark.parametrize("use, want", [(ch06.DENT, 1.5), (ch06.RIDGE, -0.8)])
def test_a_longer_w_at_a_held_product_narrows_the_strip_and_nothing_else(use, want):
    widths = []
    for k in (1.0, 2.0):
        scene = ch06.layer().scene(w1=0.9 * k, w2=0.6 * k, u1=-2.0, b=0.3, use=use)
        assert scene.readouts["w.u used"] == f"{want:.3f}"
        assert scene.readouts["smallest det"] == f"{min(1, 1 + want):.3f}"
        border = item(scene, 0, "border of the strip")
        w = np.array([0.9, 0.6]) * k
        t = w[0] * np.array(border["x"], float) + w[1] * np.array(border["y"], float) + 0.3
        widths.append((t[0] - t[-1]) / 2 / np.hypot(*w))  # across, in x
        s = math.acosh(math.sqrt(2))
        assert t[0] == pytest.approx(s + want * math.tanh(s), rel=1e-3)
    assert widths[1] == pytest.approx(widths[0] / 2, rel=1e-3)


def test_the_border_of_the_condition_is_still_invertible():
    scene = ch06.layer().scene(w1=1.0, w2=0.0, u1=-1.0, u2=0.7)
    assert scene.readouts["invertible"] == "yes" and scene.readouts["smallest det"] == "0.000"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (dict(w1=0.0, w2=0.0), "w is zero, so the whole plane is moved by u tanh(b)"),
        (dict(w1=0.0, w2=0.0, use=ch06.RIDGE), "w is zero, so the whole plane is moved by"),
        (dict(u1=0.0, u2=0.0), "u is zero, so nothing moves"),
        (dict(u1=0.0, u2=0.0, use=ch06.HAT), "u is zero, so nothing moves"),
        (dict(u1=0.2, u2=-0.3), "it shears space along the line"),  # w.u = 0
    ],
)
def test_a_layer_without_w_or_u_has_no_line_to_shear_along(values, said):
    scene = ch06.layer().scene(**values)
    assert said in scene.alt and scene.readouts["invertible"] == "yes"
    moved, raw = item(scene, 0, "points"), ch06.POINTS.T
    shift = np.array([moved["x"], moved["y"]]) - raw
    assert ("plane" in said) == bool(shift.any() and np.allclose(shift, shift[:, :1], atol=1e-4))
    assert ("nothing" in said) == (np.abs(shift).max() < 1e-4)


# ---- chapter 5: one coordinate after the other --------------------------------------------------
def drawn(z):
    """The figure's map z -> x in torch, by its printed rules."""
    x1 = 0.4 + math.exp(-0.2) * z[0]
    x2 = 0.9 * torch.sin(1.5 * x1) + torch.exp(0.4 * torch.tanh(x1) - 0.6) * z[1]
    scale3 = torch.exp(0.5 * torch.cos(x2) - 0.3 * x1 - 0.4)
    return torch.stack([x1, x2, 0.6 * x1 * x2 - 0.2 + scale3 * z[2]])


@pytest.mark.parametrize("z", [(0.9, -0.6, 1.2), (-1.9, 1.7, -0.35)])
def test_sampling_shows_the_draw_and_its_exact_log_density(z):
    figure, at = ch05.sampling(), torch.tensor(z, dtype=torch.float64)
    x = drawn(at)
    jac = torch.autograd.functional.jacobian(drawn, at)
    assert torch.equal(jac, jac.tril())
    base = torch.distributions.Normal(0.0, 1.0).log_prob(at)
    for step in range(4):
        scene = figure.scene(step=step, z1=z[0], z2=z[1], z3=z[2])
        shown = [scene.readouts[f"x{i}"] for i in (1, 2, 3)]
        assert shown == [f"{x[i]:.3f}" if i < step else "?" for i in range(3)]
        if step:
            part = base[:step].sum() - torch.linalg.slogdet(jac[:step, :step])[1]
            assert float(scene.readouts["log p so far, nats"]) == pytest.approx(
                float(part), abs=6e-4
            )
            scale = math.exp(float(scene.readouts["α"].split("= ")[-1]))
            assert scale == pytest.approx(float(jac[step - 1, step - 1]), rel=2e-3)


def test_the_shaded_tails_have_equal_area_and_the_joint_density_integrates_to_one():
    for step in (2, 3):
        scene = ch05.sampling().scene(step=step)
        tails = [i for i in scene.panels[0].spec["items"] if i["t"] == "poly"]
        area = [float(np.trapezoid(t["y"], t["x"])) for t in tails]
        assert area[0] == pytest.approx(area[1], rel=1e-3)
        for name in ("x: the conditional", "z: standard"):
            curve = item(scene, 0, name)
            assert np.trapezoid(curve["y"], curve["x"]) == pytest.approx(1, abs=1e-3)
    heat = ch05.sampling().scene(step=1).panels[2].spec["items"][0]
    density = (np.array(heat["v"]) / 235) ** (1 / 0.7) * ch05.TOP
    assert density.sum() * (8 / 60) ** 2 == pytest.approx(1, abs=0.01)


# ---- chapter 5: masks ---------------------------------------------------------------------------
@pytest.mark.parametrize("dim", [2, 3, 6])
@pytest.mark.parametrize("order", ch05.ORDERS)
@pytest.mark.parametrize("depth", [1, 2])
def test_the_table_is_what_autograd_finds_in_the_network(dim, order, depth):
    torch.manual_seed(0)
    ranks = ch05.order_of(order, dim)
    net = MADE(dim, outputs=1, width=11, depth=depth, order=ranks, activation=torch.tanh).double()
    jac = torch.autograd.functional.jacobian(lambda x: net(x[None])[0], torch.randn(dim).double())
    for output in range(1, dim + 1):
        scene = ch05.masks().scene(dim=dim, width=11, depth=depth, order=order, output=output)
        sees = {f"x{i + 1}" for i in range(dim) if jac[output - 1, i] != 0}
        told = scene.readouts[f"output {output} sees"]
        assert set(told.split(", ")) - {"no input"} == sees
        assert f"Output {output} sees {told}." in scene.alt
    cells = [i for i in scene.panels[1].spec["items"] if i["t"] == "poly" and i["fill"]]
    assert len(cells) == dim * (dim - 1) // 2
    assert all(min(c["x"]) + max(c["y"]) < dim for c in cells)  # below the diagonal, in the order


def test_a_layer_with_too_few_units_misses_inputs_and_says_so():
    assert "missed" in ch05.masks().scene(dim=6, width=4).alt
    assert "missed" not in ch05.masks().scene(dim=6, width=5).alt


# ---- chapter 4: layers bend a grid into two moons -----------------------------------------------
def stored_flow():
    flow = moons_flow()
    about = weights.load(NAME, flow)
    return flow.double(), about


@pytest.mark.parametrize("k", [0, 0.3, 2.0, 4.6, 7.9, 8])
def test_a_part_of_the_layers_is_a_bijection_with_its_logabsdet(k):
    transform = first_layers(stored_flow()[0], k)
    z = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x, logabsdet = transform.from_base(z)
        back, minus = transform.to_base(x)
    torch.testing.assert_close(back, z, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(minus, -logabsdet, rtol=1e-9, atol=1e-9)
    jac = torch.func.vmap(torch.func.jacrev(lambda v: transform.from_base(v[None])[0][0]))(z)
    torch.testing.assert_close(logabsdet, torch.linalg.slogdet(jac)[1], rtol=1e-9, atol=1e-9)


def test_all_layers_are_the_flow_and_layers_are_added_at_the_data_s_end():
    flow = stored_flow()[0]
    z = torch.randn(20, 2, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(first_layers(flow, 8).from_base(z), flow.transform.from_base(z))
        seven = first_layers(flow, 7).from_base(z)[0]
        torch.testing.assert_close(first_layers(flow, 7 + 1e-9).from_base(z)[0], seven)
        last = flow.transform.transforms[0].from_base(seven)[0]
        torch.testing.assert_close(last, flow.transform.from_base(z)[0])
    for k in (-0.1, 8.1):
        with pytest.raises(ValueError, match="between 0 and 8"):
            first_layers(flow, k)


def test_what_was_trained_is_the_likelihood_where_nothing_leaves_the_box():
    flow = stored_flow()[0]
    x = moons().sample(300, generator=torch.Generator().manual_seed(5)).double()
    with torch.no_grad():
        more = Near(flow)(x) - flow(x)
    assert (more >= -1e-12).all() and (more.abs() < 1e-12).float().mean() > 0.3


def test_the_card_of_the_stored_moons_is_what_it_reaches():
    flow, about = stored_flow()
    x = moons().sample(20_000, generator=torch.Generator().manual_seed(11)).double()
    with torch.no_grad():
        loss = flow(x)
    stderr = float(loss.std()) / math.sqrt(len(x))
    assert abs(float(loss.mean()) - about["metrics"]["nll"]) < 5 * stderr
    assert about["metrics"]["nll"] < about["metrics"]["entropy"] + 0.05
    assert about["metrics"]["entropy"] == pytest.approx(moons().entropy(), abs=1e-4)


def test_bending_ends_in_the_moons_and_its_density_integrates_to_one():
    figure, flow = ch04.bend_moons(), stored_flow()[0]
    first, last = figure.scene(k=0), figure.scene(k=8)
    draws = torch.tensor(figure._data["draws"], dtype=torch.float64).T
    with torch.no_grad():
        nll = float(flow(draws).mean())
    assert last.readouts["NLL of 400 draws, nats"] == f"{nll:.3f}"
    gauss = 0.5 * draws.square().sum(1).mean() + math.log(2 * math.pi)
    assert first.readouts["NLL of 400 draws, nats"] == f"{gauss:.3f}"
    assert first.readouts["mean logabsdet so far, nats"] == "0.000"
    least = f"{-float(moons().log_prob(draws).mean()):.3f}"  # of these draws, not of all
    assert least < last.readouts["NLL of 400 draws, nats"]
    for scene in (first, last):
        assert scene.readouts["NLL of the true density, nats"] == least
        assert f"where the true density gives {least};" in scene.alt
        heat = item(scene, 1, "density of the flow")
        density = (np.array(heat["v"]) / 235) ** (1 / 0.7) * ch04.TOP
        mass = density.sum() * (2 * ch04.BOX / ch04.PIXELS) ** 2
        assert mass == pytest.approx(1, abs=0.02)


def test_a_coupling_moves_one_coordinate_only():
    figure = ch04.bend_moons()
    for whole in range(8):
        before, after = (item(figure.scene(k=whole + t), 0, "points") for t in (0.0, 1.0))
        title = figure.scene(k=whole + 1).panels[0].spec["title"]
        kept, other = ("x", "y") if "x1 passes" in title else ("y", "x")
        assert before[kept] == after[kept] and before[other] != after[other]


# ---- chapter 4: masks, squeeze, scales ----------------------------------------------------------
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_steps_are_those_of_the_flow_and_each_pixel_is_changed(levels):
    steps = ch04.steps(levels)
    pixels = torch.arange(64.0).view(1, 1, 8, 8)
    if levels > 1:  # the same routes without couplings: where do the pixels go
        stack = MultiScale(*[Squeeze()] * (levels - 1), Still())
        parts = stack.split(stack.to_base(pixels)[0])
        gone = [s["gone"] for s in steps if s["gone"]]
        assert gone == [p.flatten().int().tolist() for p in parts[:-1]]
        assert steps[-1]["numbers"].tolist() == parts[-1][0].int().tolist()
    scene = ch04.masks().scene(levels=levels, way=1)
    times = [int(word) for word in scene.readouts["changed so far"].split() if word.isdigit()]
    assert 2 <= times[0] <= times[-1] and len(times) == len(set(times)) <= 2
    assert scene.readouts["step"] == f"{len(steps)} of {len(steps)}"
    assert scene.readouts["gone to the base early"] == f"{64 - 64 // 2 ** (levels - 1)} of 64"


class Still(Squeeze):
    """The identity."""

    def to_base(self, x, context=None):
        return x, x.new_zeros(len(x))


def test_a_checkerboard_changes_every_second_neighbour():
    changed = ch04.steps(2)[0]["changed"][0]
    assert (changed[:, 1:] != changed[:, :-1]).all() and (changed[1:] != changed[:-1]).all()
    first, second = (s["changed"] for s in ch04.steps(2)[:2])
    assert (first ^ second).all()


def test_loading_the_small_flow_leaves_the_callers_random_numbers():
    torch.manual_seed(123)
    want = torch.rand(1)
    torch.manual_seed(123)
    first, second = moons_flow(), moons_flow()
    assert torch.rand(1) == want
    assert all((a == b).all() for a, b in zip(first.parameters(), second.parameters(), strict=True))
