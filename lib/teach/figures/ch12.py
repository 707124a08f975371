"""Explorable figures of chapter 12, and the numbers behind its plots.

The pictures of `captions`, `guidance` and `walk` were drawn by the stored models beforehand, by
`python -m lib.teach.figures.ch12_pictures`, and lie beside this file.
"""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...attention import CrossAttention
from ...data import shapes
from ...data.captions import caption, encode_captions, parse_captions
from ...data.reader import matches, read_attributes
from ...diffusion.obedience import draw
from ..explorable import Choice, Explorable, Panel, Scene, Sheet, Slider, explore

HERE = Path(__file__).parent
DRAWS = 3  # pictures of each caption
CAPTIONS = {k: len(shapes.NAMES[k]) for k in ("size", "colour", "shape", "position", "background")}
WEIGHTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
GUIDED = (
    "a large red circle at the left on a dark background",
    "a small pink cross at the top on a light background",
    "a blue triangle",
    "a small green square at the left and a small yellow circle at the right on a dark background",
)
SHORT = ("large red circle", "small pink cross", "blue triangle", "square and circle")
STOPS = [k / 10 for k in range(11)]
PAIRS = (  # a seed, and what the two ends show
    (0, dict(shape="circle", colour="red", size="large", position="centre", background="dark"),
        dict(shape="circle", colour="blue", size="large", position="centre", background="dark")),
    (1, dict(shape="square", colour="green", size="small", position="left", background="light"),
        dict(shape="square", colour="green", size="small", position="right", background="light")),
    (2, dict(shape="circle", colour="yellow", size="small", position="centre", background="dark"),
        dict(shape="circle", colour="yellow", size="large", position="centre", background="dark")),
    (3, dict(shape="triangle", colour="pink", size="large", position="top", background="light"),
        dict(shape="cross", colour="red", size="large", position="bottom", background="dark")),
)  # fmt: skip
PAIR_NAMES = ("colour", "place", "size", "all of it")


@cache
def scalar_quantisers(counts: tuple[int, ...] = (2, 3, 4, 8, 16)) -> np.ndarray:
    """log2 K, entropy of the index and distortion of Lloyd's quantisers of N(0, 1): (n, 3).

    By his two conditions in closed form: cells between midpoints, codes at the means of the cells.
    """
    rows, edge = [], torch.tensor([math.inf], dtype=torch.float64)
    density = lambda b: torch.exp(-0.5 * b * b) / math.sqrt(2 * math.pi)  # noqa: E731
    for count in counts:
        codes = torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)
        for _ in range(500):
            cuts = torch.cat([-edge, (codes[1:] + codes[:-1]) / 2, edge])
            share = torch.special.ndtr(cuts[1:]) - torch.special.ndtr(cuts[:-1])
            codes = (density(cuts[:-1]) - density(cuts[1:])) / share
        entropy = -(share * share.log2()).sum()
        rows.append([math.log2(count), entropy, 1 - (share * codes**2).sum()])
    return np.array(rows, float)


def linear_curve(spectrum: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Bits and distortion of reverse water-filling at levels from high to low."""
    level = torch.logspace(math.log10(0.09), math.log10(float(spectrum.max())), 80)[:, None]
    rate = (0.5 * (spectrum / level).log2()).clamp(min=0).sum(1)
    return rate.numpy(), spectrum.minimum(level).sum(1).numpy()


@torch.no_grad()
def reading(model, text: str, t: float, draws: int = 8) -> tuple[Tensor, Tensor]:
    """The pictures drawn for a caption, and how much each place reads of each word at time t.

    (draws, 3, 32, 32) in [0, 1] and (words, h, w): the mean over the layers with most places,
    over heads, noises and pictures; each map is divided by its mean.
    """
    device = model.shift.device
    images = draw(model, [text] * draws, start=_noise(draws, 2).to(device))
    z, tokens = model.encode(2 * images - 1), encode_captions([text] * draws, device=device)
    schedule, net = model.denoiser.schedule, model.denoiser.net
    z_t = schedule.alpha(t) * z + schedule.sigma(t) * _noise(draws, 3).to(device)
    seen: list[Tensor] = []
    layers = [m for m in net.modules() if isinstance(m, CrossAttention)]
    read = lambda m, given, _: seen.append(m.weights(*given).mean((0, 1)))  # noqa: E731
    hooks = [m.register_forward_hook(read) for m in layers]
    model.denoiser(z_t, t, tokens)
    for hook in hooks:
        hook.remove()
    places = max(len(w) for w in seen)
    maps = torch.stack([w for w in seen if len(w) == places]).mean(0).T[: len(text.split())]
    side = math.isqrt(places)
    maps = (maps / maps.mean(1, keepdim=True)).view(-1, side, side)
    return images.cpu(), maps.cpu()


def _noise(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, 8, 8, generator=generator, dtype=torch.float32)


def spectrum(x: Tensor) -> np.ndarray:
    """Mean power of images (B, C, H, W) at each whole spatial frequency, 0 to H / 2, over rings."""
    power = torch.fft.fft2(x.double()).abs().square().mean((0, 1)) / x.shape[2] ** 4
    f = torch.fft.fftfreq(x.shape[2], dtype=torch.float64) * x.shape[2]
    ring = (f[:, None] ** 2 + f**2).sqrt().round().long()
    total = torch.zeros(int(ring.max()) + 1, dtype=torch.float64)
    total.index_add_(0, ring.flatten(), power.flatten())
    return (total / torch.bincount(ring.flatten()))[: x.shape[2] // 2 + 1].numpy()


@cache
def measured() -> dict[str, list[dict]]:
    """Obedience at each of WEIGHTS of the "latent" and the "pixel" model, measured beforehand."""
    return json.loads((HERE / "ch12_measured.json").read_text())


@cache
def _sheet(name: str, n: int) -> Sheet:
    return Sheet.open(HERE / f"ch12_{name}.webp", n)


@cache
def _right(name: str, texts: tuple[str, ...], each: int) -> list[tuple[int, int]]:
    """For each picture of a sheet, as the page shows it: attributes right, and asked for."""
    pixels = torch.from_numpy(_sheet(name, each * len(texts)).pixels.copy())
    read = read_attributes(pixels.permute(0, 3, 1, 2).double() / 255)
    wanted = parse_captions(list(texts)).repeat_interleave(each, 0)
    hits = torch.stack(list(matches(read, wanted).values()), 1)
    right, asked = (hits == 1).sum(1), (~hits.isnan()).sum(1)
    return list(zip(right.tolist(), asked.tolist(), strict=True))


def captions() -> Explorable:
    """Choose size, colour, shape, place and background; the stored model has drawn all 400."""
    names = {k: shapes.NAMES[k] for k in CAPTIONS}
    grid = torch.cartesian_prod(*(torch.arange(n) for n in CAPTIONS.values()))
    order = [list(CAPTIONS).index(name) for name in shapes.FIELDS[:5]]
    texts = tuple(caption(grid[:, order]))
    sheet, right = _sheet("captions", DRAWS * len(texts)), _right("captions", texts, DRAWS)
    data = {
        "names": {k: list(v) for k, v in names.items()},
        "draws": DRAWS,
        "right": "".join(str(r) for r, _ in right),
    }

    def scene(size: str, colour: str, shape: str, position: str, background: str) -> Scene:
        index = 0
        chosen = {"size": size, "colour": colour, "shape": shape, "position": position,
                  "background": background}  # fmt: skip
        for name, value in chosen.items():
            index = index * CAPTIONS[name] + names[name].index(value)
        panel = Panel((0, DRAWS), (0, 1), axes=False, equal=True, aspect=DRAWS)
        for i in range(DRAWS):
            panel.tile(sheet, DRAWS * index + i, (i + 0.03, i + 0.97, 0.03, 0.97))
        got = [right[DRAWS * index + i][0] for i in range(DRAWS)]
        whole = sum(r == 5 for r in got)
        return Scene(
            [panel],
            f"Three pictures for the caption: {texts[index]}. Read off the pictures, "
            f"{sum(got)} of {5 * DRAWS} attributes are as asked, all five in {whole} of {DRAWS}.",
            {"caption": texts[index], "attributes right": f"{sum(got)} of {5 * DRAWS}"},
        )

    labels = {"position": "place"}
    controls = [
        Choice(k, labels.get(k, k), tuple(v), v[-1 if k == "size" else 0]) for k, v in names.items()
    ]
    return explore("Say what to draw", scene, controls, twin=HERE / "ch12_captions.js", data=data)


def guidance() -> Explorable:
    """Pictures of some captions at nine weights, and the measured curves."""
    each, model = 6, measured()["latent"]
    sheet = _sheet("guidance", each * len(GUIDED) * len(WEIGHTS))
    texts = tuple(text for text in GUIDED for _ in WEIGHTS)
    right = _right("guidance", texts, each)
    shares = [row["attributes"] for row in model]
    spreads = [row["spread"] for row in model]
    data = {
        "names": list(SHORT), "texts": list(GUIDED), "weights": list(WEIGHTS), "each": each, "right": right,
        "shares": [round(v, 4) for v in shares], "spreads": [round(v, 4) for v in spreads],
    }  # fmt: skip

    def scene(text: str, w: float) -> Scene:
        k = min(range(len(WEIGHTS)), key=lambda i: abs(WEIGHTS[i] - w))
        asked_for = SHORT.index(text)
        first = each * (asked_for * len(WEIGHTS) + k)
        left = Panel((0, 3), (0, 2), axes=False, equal=True, aspect=1.5, grow=1.2,
                     title=f"six pictures at w = {WEIGHTS[k]:g}")  # fmt: skip
        for i in range(each):
            x, y = i % 3, 1 - i // 3
            left.tile(sheet, first + i, (x + 0.03, x + 0.97, y + 0.03, y + 0.97))
        plot = Panel((-0.3, 8.3), (0, 1.3), title="over many captions", xlabel="guidance weight w",
                     ylabel="share, or ratio", aspect=1.3)  # fmt: skip
        plot.line(WEIGHTS, data["shares"], 0, "attributes right", dash=0, marker=0)
        plot.points(WEIGHTS, data["shares"], 0, radius=3)
        plot.line(WEIGHTS, data["spreads"], 1, "spread, 1 is the data's", dash=1, marker=1)
        plot.points(WEIGHTS, data["spreads"], 1, radius=3)
        plot.line([WEIGHTS[k]] * 2, [0, 1.3], -1, "your weight", dash=2, width=1)
        got, asked = (sum(v) for v in zip(*right[first : first + each], strict=True))
        share, spread = data["shares"][k], data["spreads"][k]
        return Scene(
            [left, plot],
            f"Six pictures for {GUIDED[asked_for]}, at guidance weight {WEIGHTS[k]:g}: {got} of {asked} attributes are as "
            f"asked. Over many captions {share:.2f} of the attributes are right, and the spread is "
            f"{spread:.2f} of the data's.",
            {
                "attributes right, here": f"{got} of {asked}",
                "right, many captions": f"{share:.2f}",
                "spread": f"{spread:.2f}",
            },
        )

    controls = [
        Choice("text", "caption", SHORT, SHORT[2]),
        Slider("w", "guidance weight", 0, 8, 2, 0.5),
    ]
    return explore(
        "Turn up the guidance", scene, controls, twin=HERE / "ch12_guidance.js", data=data
    )


def walk() -> Explorable:
    """From one picture to another, along a straight line of latents and one of pixels."""
    n = len(STOPS)
    sheet = _sheet("walk", 2 * n * len(PAIRS))
    pixels = torch.from_numpy(sheet.pixels.copy()).permute(0, 3, 1, 2).double() / 255
    read = read_attributes(pixels)
    sure = [round(v, 3) for v in read.confidence.tolist()]
    data = {"pairs": list(PAIR_NAMES), "stops": n, "sure": sure}

    def scene(pair: str, share: float) -> Scene:
        k, at = PAIR_NAMES.index(pair), round(share * (n - 1))
        first = 2 * n * k
        panels = []
        for j, way in enumerate(("latents", "pixels")):
            title = f"{at / (n - 1):.0%}, by {way}"  # short: on a phone the two stand side by side
            panel = Panel((0, 1), (0, 1), axes=False, equal=True, aspect=1.0, grow=0.6, title=title)
            panels.append(panel.tile(sheet, first + j * n + at, (0, 1, 0, 1)))
        plot = Panel((0, 1), (0, 1.05), xlabel="share of the way", ylabel="explained by one drawing",
                     title="the reader's confidence", aspect=1.3, grow=0.9)  # fmt: skip
        for j, name in enumerate(("latents", "pixels")):
            plot.line(STOPS, sure[first + j * n : first + (j + 1) * n], j, name, dash=j)
        plot.line([at / (n - 1)] * 2, [0, 1.05], -1, "the slider's share", dash=2, width=1)
        a, b = sure[first + at], sure[first + n + at]
        return Scene(
            [*panels, plot],
            f"The pair that differs in {pair}, {at / (n - 1):.0%} of the way: one drawing explains {a:.2f} of "
            f"what is seen on the way through latents, and {b:.2f} on the way through pixels.",
            {"by latents": f"{a:.2f}", "by pixels": f"{b:.2f}"},
        )

    controls = [
        Choice("pair", "what differs", PAIR_NAMES, PAIR_NAMES[1]),
        Slider("share", "share of the way", 0, 1, 0.5, 0.1, play=True),
    ]
    return explore(
        "From one picture to another", scene, controls, twin=HERE / "ch12_walk.js", data=data
    )
