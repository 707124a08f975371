"""Small trained weights beside the code: `name.safetensors`, and `name.json` that says how they came.

A card without measured numbers is refused: what the book shows of a model was measured on the very
numbers that are stored, after rounding.
"""

import hashlib
import json
import platform
import time
from copy import deepcopy
from pathlib import Path

import torch
from torch import nn

from lib.paths import commit, write_atomic

FOLDER = Path(__file__).resolve().parent


def save(
    name: str,
    model: nn.Module,
    card: dict,
    dtype: torch.dtype = torch.float16,
    folder: Path | str = FOLDER,
) -> Path:
    """Write a model's weights and its card; returns the weights' path.

    card needs "metrics", "seconds", "seed", "recipe" and "device"; the versions, date, commit, number
    of parameters and SHA-256 are added. Call `round_weights` before measuring the metrics.

    >>> import tempfile
    >>> facts = dict(metrics={"loss": 1.0}, seconds=1.0, seed=0, recipe="none", device="cpu")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save("tiny", round_weights(nn.Linear(1, 1)), facts, folder=folder).name
    'tiny.safetensors'
    """
    from safetensors.torch import save as to_bytes

    needed = ("metrics", "seconds", "seed", "recipe", "device")
    missing = [key for key in needed if card.get(key) in (None, "", {})]
    if missing:
        raise ValueError(f"the card of {name} lacks {', '.join(missing)}")
    state = {
        k: (v.to(dtype) if v.is_floating_point() else v).contiguous().cpu()
        for k, v in model.state_dict().items()
    }
    for k, v in model.state_dict().items():
        if v.is_floating_point() and not torch.equal(state[k].to(v.dtype), v.cpu()):
            raise ValueError(
                f"{k} is not the same after storing it as {dtype}: call round_weights(model) and "
                f"measure the metrics after it"
            )
    content = to_bytes(state)
    made = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "dtype": str(dtype).removeprefix("torch."),
        "sha256": hashlib.sha256(content).hexdigest(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": commit(),
    }
    text = json.dumps({**card, **made}, indent=1) + "\n"  # a card that is none leaves all as it was
    path = write_atomic(Path(folder) / f"{name}.safetensors", content)
    write_atomic(path.with_suffix(".json"), text)
    return path


def load(name: str, model: nn.Module, folder: Path | str = FOLDER) -> dict:
    """Put stored weights into a model of the same shape, in eval mode; returns the card.

    Raises:
        ImportError: safetensors is not installed.
        FileNotFoundError: there are no such weights (the message names those there are) or no card.
        ValueError: the file is not the one on the card, or belongs to another model, which is left
            as it was.

    >>> from lib.flows.moons import moons_flow
    >>> load("moons_realnvp", moons_flow())["parameters"]
    5584
    """
    try:
        from safetensors.torch import load as from_bytes
    except ImportError as error:
        raise ImportError(
            "stored weights need safetensors: pip install safetensors --no-deps"
        ) from error
    path = Path(folder) / f"{name}.safetensors"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in Path(folder).glob("*.safetensors"))) or "none"
        raise FileNotFoundError(f"no weights called {name!r} in {folder}; there are: {there}")
    about, content = card(name, folder), path.read_bytes()
    if hashlib.sha256(content).hexdigest() != about["sha256"]:
        raise ValueError(f"{path} is not the file that its card describes: fetch it again")
    before = deepcopy(model.state_dict())
    try:
        model.load_state_dict(from_bytes(content))
    except RuntimeError as error:
        model.load_state_dict(before)  # what did fit has been copied already
        raise ValueError(f"{name} holds weights of another model: {error}") from error
    model.eval()
    return about


def card(name: str, folder: Path | str = FOLDER) -> dict:
    """What is known of stored weights: metrics, recipe, seconds, seed, device, versions, date.

    >>> card('moons_realnvp')['data']
    'moons'
    """
    path = Path(folder) / f"{name}.json"
    if not path.is_file():
        raise FileNotFoundError(f"there is no card {path.name} in {folder}")
    return json.loads(path.read_text())


@torch.no_grad()
def round_weights(model: nn.Module, dtype: torch.dtype = torch.float16) -> nn.Module:
    """Replace each weight by its nearest in `dtype`, in place: what `save` will store.

    Raises ValueError if a weight is too large for it, and leaves all of them as they were.

    >>> layer = nn.Linear(1, 1)
    >>> nn.init.constant_(layer.weight, 0.1) and round_weights(layer).weight.item()
    0.0999755859375
    """
    state = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
    for k, v in state.items():
        if (v.isfinite() & ~v.to(dtype).isfinite()).any():
            raise ValueError(f"{k} holds {v.abs().max():.3g}, too large for {dtype}")
    for v in state.values():
        v.copy_(v.to(dtype))
    return model
