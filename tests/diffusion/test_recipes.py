"""The recipes of images: their data, a step of training, and what the stored weights can do."""

import math

import pytest
import torch

from lib import weights
from lib.data import images
from lib.diffusion import Cosine, measures, recipes
from lib.diffusion.digits import digits_model
from lib.diffusion.measures import _with_labels, draw, measure_bits, quality
from lib.quality import Classifier, classifier
from lib.train import fit

STORED = ["mnist", "fashion_mnist"]


@pytest.fixture
def noise_for_images(monkeypatch):
    """MNIST and CIFAR-10 as two hundred images of noise: the real ones may not be there."""

    def make(channels, size):
        def load(split="train", device=None):
            rng = torch.Generator().manual_seed(len(split))
            shape = (200, channels, size, size)
            levels = torch.randint(256, shape, generator=rng, dtype=torch.uint8)
            return levels, torch.arange(200) % 10

        return load

    monkeypatch.setattr(images, "mnist", make(1, 28))
    monkeypatch.setattr(images, "cifar10", make(3, 32))


def test_each_level_becomes_an_interval_of_its_own():
    """Level k is 2 k / (n - 1) - 1, as in DDPM, in the middle of an interval that ends at the next."""
    k = torch.arange(256, dtype=torch.uint8)
    torch.testing.assert_close(recipes.to_unit(k, 256), k / 127.5 - 1)
    low, high = (recipes.to_unit(k, 256, torch.full((256,), u)) for u in (0.0, 1.0))
    torch.testing.assert_close(low[1:], high[:-1])
    assert (low[0] + 1).item() == pytest.approx(-1 / 255, rel=1e-4)


def test_pixels_are_images_with_their_own_labels_and_noise(noise_for_images):
    pixels = recipes.LabelledPixels("mnist")
    x, y = pixels(300)
    assert x.shape == (300, 1, 28, 28) and y.shape == (300,)
    levels = ((x + 1) * 127.5).round().long()
    corner = lambda v: v[:, :, :3, :3].flatten(1)
    found = (corner(levels)[:, None] == corner(pixels.train.long())).all(2)  # (300, 200)
    assert (found.sum(1) == 1).all() and torch.equal(pixels.labels[found.long().argmax(1)], y)
    offset = (x + 1) * 127.5 - levels  # uniform on one level
    assert offset.abs().max() < 0.501
    assert abs(offset.mean().item()) < 4 / (12 * offset.numel()) ** 0.5
    assert offset.var().item() == pytest.approx(1 / 12, rel=0.01)
    assert (pixels(300)[0] != x).any()
    held, labels = pixels.held("test", most=50)
    assert torch.equal(held, pixels.held("test", most=50)[0])
    levels = ((held + 1) * 127.5).round().long()
    assert torch.equal(levels, pixels.part("test")[0][::4].long())
    assert torch.equal(labels, pixels.part("test")[1][::4])


def test_half_of_the_mirrored_images_are_turned_and_keep_their_labels(noise_for_images):
    pixels = recipes.LabelledPixels("cifar10", mirror=True)
    x, y = pixels(200)
    levels, corner = ((x + 1) * 127.5).round().long(), lambda v: v[:, :, :3, :3].flatten(1)
    both = torch.cat([pixels.train, pixels.train.flip(3)]).long()
    found = (corner(levels)[:, None] == corner(both)).all(2)
    assert (found.sum(1) == 1).all()
    which = found.long().argmax(1)
    assert torch.equal(pixels.labels.repeat(2)[which], y)
    assert 70 < (which >= 200).sum() < 130


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_two_steps_of_a_recipe(name, noise_for_images):
    """A fresh network says 0, so its loss is E v^2 / D = E alpha^2 + E sigma^2 x^2 = 1/2 + 1/6."""
    narrow = {"width": 16} if name == "cifar10" else {}
    recipe = recipes.RECIPES[name](steps=2, **narrow)
    recipe.fit.update(batch_size=32, valid=tuple(v[:32] for v in recipe.fit["valid"]))
    first, second = list(fit(recipe.model, recipe.train, **recipe.fit, progress=False))
    assert first.loss == pytest.approx(2 / 3, rel=0.05)
    assert second.valid < 1 and first.grad_norm > 0
    x = recipe.model.sample(2, torch.tensor([3, recipe.model.null]), steps=2)
    assert x.shape == (2, *recipe.train.shape)


def test_the_network_for_cifar10_is_of_the_published_size():
    """DDPM's has 35.7 million parameters (Ho et al. 2020, section 4)."""
    with torch.device("meta"):
        net = recipes.cifar10_model().denoiser.net
        count = sum(p.numel() for p in net.parameters())
        assert 34e6 < count < 40e6
        out = net(torch.zeros(1, 3, 32, 32), torch.zeros(1), torch.zeros(1, dtype=torch.long))
    assert out.shape == (1, 3, 32, 32)


@pytest.mark.parametrize("name", STORED)
def test_stored_weights_are_small_and_good_by_their_card(name):
    card = weights.load(f"ddpm_{name}", recipes.small_model())
    assert (weights.FOLDER / f"ddpm_{name}.safetensors").stat().st_size < 4e6
    got = card["metrics"]
    real, with_labels = got["real images"], got["with labels"]
    assert real["frechet"] < with_labels["frechet"]
    assert with_labels["precision"] > 0.5 and with_labels["recall"] > 0.3
    assert got["seconds for 16 images in 50 steps"] < 10


@pytest.mark.parametrize("name", STORED)
def test_samples_of_stored_weights_are_of_the_class_asked_for(name):
    """Twenty samples in 20 steps, judged by a classifier that never saw a sample."""
    model = recipes.small_model()
    weights.load(f"ddpm_{name}", model)
    labels = torch.arange(20) % 10
    x = draw(model, labels, steps=20)
    assert x.shape == (20, 1, 28, 28) and -1.3 < x.min() < -0.9 and 0.8 < x.max() < 1.3
    assert classifier(name).accuracy(x, labels) > 0.7


@pytest.mark.parametrize("name", STORED)
def test_the_stored_network_knows_noise_from_its_samples(name):
    """On its own samples the loss is far below that of a network that says 0."""
    model = recipes.small_model()
    weights.load(f"ddpm_{name}", model)
    labels = torch.arange(20) % 10
    x = draw(model, labels, steps=10)
    with torch.no_grad():
        loss = model(x.clamp(-1, 1), labels).mean().item()
    assert loss < 0.3 * (0.5 + 0.5 * x.square().mean().item())


def test_images_for_comparison_have_the_labels_asked_for():
    have, want = torch.arange(300) % 10, torch.randint(10, (40,))
    found = _with_labels(torch.arange(300), have, want)
    assert torch.equal(have[found], want) and len(found.unique()) == 40
    assert (found[want == 3] > 100).any()  # not the first ones


def test_quality_of_a_set_against_itself():
    rng = torch.Generator().manual_seed(0)
    real = torch.rand(60, 1, 28, 28, generator=rng) * 2 - 1
    same = quality(real, real, "mnist")
    assert same["frechet"] < 1e-6 and same["precision"] == same["recall"] == 1
    worse = quality(real, real.abs(), "mnist")
    assert worse["frechet"] > 1 and worse["precision"] < 1


def test_a_fresh_network_is_a_standard_normal_density(noise_for_images, monkeypatch):
    """It says v = 0, the right answer for data from N(0, I): so bound and flow are both its density.

    Bits = -log2 N(x; 0, I) / D - log2 of a level's width. The chain that decodes at log-SNR 4 lets
    the outer levels reach to infinity, a few hundredths of a bit.
    """
    pixels = recipes.LabelledPixels("mnist")
    x, labels = pixels.train[:1].expand(10, -1, -1, -1), torch.zeros(10, dtype=torch.long)
    monkeypatch.setattr(pixels, "part", lambda split: (x, labels))  # one image, ten draws
    found = measure_bits(recipes.small_model(), pixels, 10, log_snr=4.0)
    square = recipes.to_unit(x[0], 256).double().square().mean().item()
    want = 0.5 * (math.log(2 * math.pi) + square) / math.log(2) - math.log2(2 / 255)
    assert found["images"] == 10
    assert found["flow"] == pytest.approx(want, abs=0.005)
    assert found["elbo, standard error"] < 0.02
    assert found["elbo"] == pytest.approx(want, abs=0.08)


def test_bits_are_not_measured_at_noise_that_is_not_reached(noise_for_images):
    """The card would state the number that was asked for."""
    pixels, model = recipes.LabelledPixels("mnist"), recipes.small_model()
    model.denoiser.schedule = Cosine(10.0)
    with pytest.raises(ValueError, match="no time of this Cosine has log_snr = 11"):
        measure_bits(model, pixels, 2)


def test_time_is_taken_without_drawing_from_the_caller_s_numbers():
    model, before = digits_model(), torch.get_rng_state()
    assert measures.seconds_for(model, 1, 1) > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_bits_are_measured_for_as_many_images_as_asked(monkeypatch):
    """A data set without a classifier has no sample quality; its bits come with n alone."""
    seen, model = [], recipes.small_model()
    monkeypatch.setattr(
        measures, "measure_bits", lambda *given: seen.append(given) or {"elbo": 1.5}
    )

    class Pixels:
        name = "no classifier for these"

    pixels = Pixels()
    without = measures.measure(model, pixels, steps=2)
    found = measures.measure(model, pixels, bits=7, steps=2)
    assert seen == [(model, pixels, 7)] and found["bits per dimension"] == {"elbo": 1.5}
    assert "bits per dimension" not in without and len(found) == len(without) + 1


def test_what_is_compared_with_what(noise_for_images, monkeypatch):
    """Real test images against samples with their labels, samples without any, and training images."""
    drawn, scored, confirmed, model = [], [], [], recipes.small_model()
    pixels, sample = recipes.LabelledPixels("mnist"), torch.randn(2, 50, 1, 28, 28)

    def record_draw(model, labels, steps):
        drawn.append((labels, steps))
        return sample[len(drawn) - 1]

    def record_quality(real, fake, name):
        scored.append((real, fake, name))
        return {"frechet": float(len(scored))}

    monkeypatch.setattr(measures, "draw", record_draw)
    monkeypatch.setattr(measures, "quality", record_quality)
    judge = lambda self, x, labels: confirmed.append((x, labels)) or 0.25
    monkeypatch.setattr(Classifier, "accuracy", judge)
    found = measures.measure_samples(model, pixels, n=50, steps=3)
    real, labels = pixels.held("test", 50)
    (asked, steps), (free, more) = drawn
    assert torch.equal(asked, labels) and steps == more == 3
    assert torch.equal(free, torch.full_like(labels, 10))  # the label that stands for none
    assert all(torch.equal(r, real) and name == "mnist" for r, _, name in scored)
    assert torch.equal(scored[0][1], sample[0]) and torch.equal(scored[1][1], sample[1])
    levels, kinds = pixels.part("train")
    same = ((scored[2][1] + 1) * 127.5).round().flatten(1)[:, None] == levels.flatten(1)
    assert (same.all(2).sum(1) == 1).all()  # images of the training set, of these labels
    assert torch.equal(kinds[same.all(2).long().argmax(1)], labels)
    order = ("with labels", "without labels", "real images")
    assert [found[k]["frechet"] for k in order] == [1.0, 2.0, 3.0]
    assert (found["part"], found["images"], found["steps"]) == ("test", 50, 3)
    ((judged, by),) = confirmed
    assert torch.equal(judged, sample[0]) and torch.equal(by, labels)
    assert found["share whose label our classifier confirms"] == 0.25


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--only-bits"], "--only-bits needs --bits"),
        (["--bits", "-5"], "0, or 2 images at least"),
        (["--bits", "1", "--only-bits"], "0, or 2 images at least"),
    ],
)
def test_bits_of_too_few_images_are_refused_at_once(options, says, tmp_path, capsys):
    with pytest.raises(SystemExit):
        measures.main(["mnist", "--folder", str(tmp_path), *options])
    assert says in capsys.readouterr().err


def test_one_image_has_no_standard_error(noise_for_images):
    pixels, model = recipes.LabelledPixels("mnist"), recipes.small_model()
    with pytest.raises(ValueError, match="n must be at least 2, not 1"):
        measure_bits(model, pixels, 1)


@pytest.mark.parametrize("most", [50, 70, 130, 199, 200, 1_000])
def test_as_many_images_as_asked_from_all_of_a_split(most, noise_for_images, monkeypatch):
    """Where their number divides the split's, every k-th, as the stored numbers were measured."""
    from lib.diffusion import elbo, likelihood

    pixels, seen = recipes.LabelledPixels("mnist"), []
    levels, kinds = pixels.part("test")
    n = min(most, 200)
    every = torch.arange(0, 200, 200 // n) if 200 % n == 0 else torch.arange(n) * 200 // n
    assert len(every) == n and every[-1] >= 198 - 200 // n
    held, labels = pixels.held("test", most)
    assert ((held + 1) * 127.5 - levels[every]).abs().max() < 0.501
    assert torch.equal(labels, kinds[every])
    fake = lambda x, c: seen.append((x, c)) or torch.rand(len(x))
    bound = lambda d, x, ts, c, **how: elbo.Bound(*[fake(x, c)] * 3)
    monkeypatch.setattr(elbo, "chain_elbo", bound)
    monkeypatch.setattr(likelihood, "flow_bits", lambda d, x, k, c, **how: fake(x, c))
    found = measure_bits(recipes.small_model(), pixels, most)
    x, c = seen[-1]
    assert torch.equal(x, recipes.to_unit(levels[every], 256)) and torch.equal(c, kinds[every])
    assert found["images"] == n and sum(len(x) for x, _ in seen) == 2 * n
