"""Draws the pictures that chapter 12's explorable figures show, by the stored models, and keeps them.

    OMP_NUM_THREADS=1 python -m lib.teach.figures.ch12_pictures

writes `ch12_captions.webp`, `ch12_guidance.webp` and `ch12_walk.webp`, sheets of 40 pictures a row, and
`ch12_measured.json`, obedience and spread at each guidance weight, beside this file.
"""

from __future__ import annotations

import itertools
import json

import torch
from torch import Tensor

from ... import weights
from ...data import shapes
from ...data.captions import caption
from ...diffusion.obedience import draw, obedience
from ...diffusion.shapes import latent_model, pixel_model
from ..scene import Sheet
from .ch12 import CAPTIONS, DRAWS, GUIDED, HERE, PAIRS, STOPS, WEIGHTS


def levels(x: Tensor):
    """(N, 3, H, W) in [0, 1] -> (N, H, W, 3), 0 .. 255 in steps of 5: nobody sees it, and the file is a quarter."""
    return (5 * (x.clamp(0, 1) * 51).round()).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def every_caption(model) -> Tensor:
    """DRAWS pictures of each of the 400 captions, from the same noises for each caption."""
    start = torch.randn(DRAWS, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor(list(itertools.product(*(range(n) for n in CAPTIONS.values()))))
    order = [list(CAPTIONS).index(name) for name in shapes.FIELDS[:5]]
    texts = caption(labels[:, order])
    texts = [text for text in texts for _ in range(DRAWS)]
    return draw(model, texts, 2.0, start=start.repeat(len(labels), 1, 1, 1))


def every_weight(model) -> Tensor:
    """6 pictures of each caption of GUIDED at each of WEIGHTS, from the same noises."""
    start = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    parts = [draw(model, [text] * 6, w, start=start) for text in GUIDED for w in WEIGHTS]
    return torch.cat(parts)


def walks(model) -> Tensor:
    """Between two pictures of each of PAIRS: by latents, then by pixels, at each of STOPS."""
    out = []
    for seed, one, two in PAIRS:
        generator = torch.Generator().manual_seed(seed)
        ends = [
            shapes.render(shapes.sample_attributes(1, generator, **what)) for what in (one, two)
        ]
        z = [model.encode(2 * x - 1) for x in ends]
        mix = lambda a, b: torch.cat([torch.lerp(a, b, w) for w in STOPS])  # noqa: E731
        out += [(model.decode(mix(*z)) + 1) / 2, mix(*ends)]
    return torch.cat(out)


def measured(model, weights: tuple[float, ...]) -> list[dict]:
    """Obedience at each of these weights, on 4 pictures of each of 24 captions."""
    return [obedience(model, w, captions=24, each=4)._asdict() for w in weights]


def main() -> None:
    """Draw, measure, store."""
    models = {}
    for name, make in (("latent_shapes", latent_model), ("pixel_shapes", pixel_model)):
        models[name] = make()
        weights.load(name, models[name])
    latent = models["latent_shapes"]
    for name, make in (("walk", walks), ("guidance", every_weight), ("captions", every_caption)):
        content = Sheet(name, levels(make(latent))).webp()
        (HERE / f"ch12_{name}.webp").write_bytes(content)
        print(name, len(content), flush=True)
    found = {
        "latent": measured(latent, WEIGHTS),
        "pixel": measured(models["pixel_shapes"], WEIGHTS[::2]),
    }
    (HERE / "ch12_measured.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
