"""One training loop for every model: `for update in fit(model, data, steps=1000): ...`."""

import io
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from lib.paths import write_atomic
from lib.utils import check_batch, check_count

Data = Tensor | Callable[[int], Tensor | tuple[Tensor, Tensor]]


class Update(NamedTuple):
    """What `fit` yields after each update."""

    step: int  # updates done so far, from 1
    loss: float  # mean over the minibatch, in nats, before the update
    valid: float | None  # mean validation loss after it, at the steps where it is computed
    grad_norm: float  # before clipping
    seconds: float  # since this call of fit


def fit(
    model: nn.Module,
    data: Data,
    *,
    steps: int,
    batch_size: int = 256,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    clip: float | None = None,
    ema: float | None = None,
    valid: Tensor | tuple[Tensor, Tensor] | None = None,
    valid_every: int | None = None,
    patience: int | None = None,
    context: Tensor | None = None,
    seed: int = 0,
    schedule: str = "cosine",
    amp: torch.dtype | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    progress: bool = True,
) -> Iterator[Update]:
    """Train by Adam (AdamW with weight_decay); yields an `Update` after each step, so iterate it.

    The model is called as `model(x, context)` and returns one loss for each example, (B,), in nats.
    When the loop ends (or is left by `break`) it is in eval mode and holds the best weights seen on
    `valid`, else the averaged weights if `ema` is set, else the last ones. Where minibatches are
    drawn from does not depend on torch's global seed.

    Args:
        data: examples (N, ...), with `context` (N, ...) beside them if the model takes one; or a
        function
            batch_size -> x or (x, context) that draws new examples.
        schedule: "cosine" lowers the learning rate to 0 over `steps`, "constant" leaves it.
        clip: largest norm of the gradient.
        ema: decay of an exponential moving average of the weights, which is then what is validated.
        valid: held-out examples, or (examples, context); their loss is computed every `valid_every`
        steps (default
            steps / 50) with the same noise each time.
        patience: stop after so many validations in a row without a new best.
        amp: torch.bfloat16 runs the model under autocast.
        checkpoint: a file to resume from if it exists, written every `checkpoint_every` steps and
        at the end,
            with everything a resumed run needs to give the same weights (on a CPU, to the bit).

    Raises:
        ValueError, TypeError: a mistake in the arguments, the model's loss, or a checkpoint from
        other settings.
        FloatingPointError: the loss or its gradient is not finite; the model is left with the
        weights of the last
            step where both were.
    """
    check_count(steps, "steps")
    check_count(batch_size, "batch_size")
    check_count(checkpoint_every, "checkpoint_every")
    if schedule not in ("cosine", "constant"):
        raise ValueError(f'schedule must be "cosine" or "constant", got {schedule!r}')
    if amp not in (None, torch.bfloat16):
        raise ValueError(f"amp must be None or torch.bfloat16 (which needs no scaler), got {amp}")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip is the largest gradient norm, above 0; got {clip}")
    if ema is not None and not 0 < ema < 1:
        raise ValueError(f"ema is a decay between 0 and 1, such as 0.999; got {ema}")
    if patience is not None and valid is None:
        raise ValueError("patience counts validations: give fit some `valid` examples")
    if callable(data):
        if context is not None:
            raise ValueError("a data function returns (x, context) itself: leave `context` out")
    else:
        _check_data(model, data, "data", context)
    if valid is not None:
        valid = valid if isinstance(valid, tuple) else (valid, None)
        _check_data(model, valid[0], "valid", valid[1])
    settings = dict(seed=seed, batch_size=batch_size, lr=lr, weight_decay=weight_decay, clip=clip)
    settings |= dict(ema=ema, schedule=schedule, steps=steps if schedule == "cosine" else None)
    run = _Run(model, data, context, valid, amp, settings)
    run.valid_every = check_count(valid_every or max(1, steps // 50), "valid_every")
    run.patience = math.inf if patience is None else check_count(patience, "patience")
    path = None if checkpoint is None else Path(checkpoint)
    hide = not progress or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    return _updates(run, steps, path, checkpoint_every, hide)


def _check_data(model: nn.Module, x: Tensor, name: str, context: Tensor | None) -> None:
    check_batch(x, name=name, context=context)
    p = next(model.parameters(), x)
    if len(x) == 0 or x.dtype != p.dtype:
        raise ValueError(f"{name} must be some {p.dtype} examples, got {len(x)} of {x.dtype}")


def _updates(run: "_Run", steps: int, path, checkpoint_every: int, hide: bool) -> Iterator[Update]:
    if path is not None and path.exists():
        run.load(path)
    start = time.perf_counter()
    # disable=None hides the bar where there is neither a terminal nor a notebook
    with tqdm(total=steps, initial=run.step, disable=hide or None) as bar:
        try:
            while run.step < steps and run.stale < run.patience:
                loss, grad_norm = run.update()
                last = run.step == steps
                due = run.valid is not None and (run.step % run.valid_every == 0 or last)
                valid = run.validate() if due else None
                if path is not None and run.step % checkpoint_every == 0 and not last:
                    run.save(path)
                bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
                bar.update()
                yield Update(run.step, loss, valid, grad_norm, time.perf_counter() - start)
        except GeneratorExit:  # the caller left the loop
            run.finish(path)
            raise
    run.finish(path)


class _Run:
    """The state of one training run: all that a checkpoint has to hold."""

    def __init__(self, model, data, context, valid, amp, settings):
        self.model, self.data, self.context, self.valid = model, data, context, valid
        self.amp, self.settings = amp, settings
        self.params = [p for p in model.parameters() if p.requires_grad]
        if not self.params:
            raise ValueError(f"{type(model).__name__} has no parameters to train")
        self.device = self.params[0].device
        adam = torch.optim.AdamW if settings["weight_decay"] else torch.optim.Adam
        fused = self.device.type in ("cpu", "cuda")  # a fifth of the default's time on small models
        kwargs = dict(lr=settings["lr"], weight_decay=settings["weight_decay"], fused=fused)
        self.opt = adam(self.params, **kwargs)
        decay = settings["ema"]
        average = None if decay is None else get_ema_multi_avg_fn(decay)
        self.ema = None if decay is None else AveragedModel(model, multi_avg_fn=average)
        self.step, self.stale, self.best, self.best_valid = 0, 0, None, math.inf
        self.now = [
            v for v in model.state_dict().values() if isinstance(v, Tensor)
        ]  # live, detached
        self.good = [v.clone() for v in self.now]
        self.epoch, self.order = None, None

    def batch(self) -> tuple[Tensor, Tensor | None]:
        """This step's minibatch; an epoch is a permutation that its number and the seed decide."""
        B = self.settings["batch_size"]
        if callable(self.data):
            drawn = self.data(B)
            x, context = drawn if isinstance(drawn, tuple) else (drawn, None)
        else:
            epoch, i = divmod(self.step, max(1, len(self.data) // B))
            if epoch != self.epoch:
                generator = torch.Generator().manual_seed(self.settings["seed"] * 1_000_003 + epoch)
                self.epoch = epoch
                self.order = torch.randperm(len(self.data), generator=generator)
            index = self.order[i * B : (i + 1) * B].to(self.data.device)
            x = self.data[index]
            context = None if self.context is None else self.context[index.to(self.context.device)]
        return x.to(self.device), None if context is None else context.to(self.device)

    def losses(self, model: nn.Module, x: Tensor, context: Tensor | None) -> Tensor:
        with torch.autocast(self.device.type, self.amp, enabled=self.amp is not None):
            losses = model(x, context)
        if not isinstance(losses, Tensor) or losses.shape != (len(x),):
            got = f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses)
            raise ValueError(
                f"{type(self.model).__name__}(x, context) must return one loss for each of the "
                f"{len(x)} examples, shape ({len(x)},), and leave the mean to fit; got {got}"
            )
        return losses if self.amp is None else losses.float()

    @torch.enable_grad()  # whatever the caller's loop has switched off
    def update(self) -> tuple[float, float]:
        """One step of Adam: the minibatch's loss, and the norm of its gradient."""
        if not self.model.training:
            self.model.train()
        rate = self.settings["lr"]
        if self.settings["schedule"] == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * self.step / self.settings["steps"]))
        for group in self.opt.param_groups:
            group["lr"] = rate
        losses = self.losses(self.model, *self.batch())
        self.opt.zero_grad()
        losses.mean().backward()
        if self.settings["clip"] is None:
            grads = [p.grad for p in self.params if p.grad is not None]
            norm = torch.stack(torch._foreach_norm(grads)).norm()
        else:
            norm = nn.utils.clip_grad_norm_(self.params, self.settings["clip"])
        loss, grad_norm = torch.stack([losses.detach().mean(), norm]).tolist()  # one wait for a GPU
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            torch._foreach_copy_(self.now, self.good)
            self.opt.zero_grad()
            raise FloatingPointError(
                f"training stopped at step {self.step + 1}: loss {loss:.4g}, gradient norm "
                f"{grad_norm:.4g}, {int((~losses.isfinite()).sum())} of {len(losses)} losses not "
                f"finite; the model is back at the weights of the last finite step. "
                f"Try a smaller lr, clip=1.0, or look at the data"
            )
        torch._foreach_copy_(self.good, self.now)
        self.opt.step()
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        self.step += 1
        return loss, grad_norm

    @torch.no_grad()
    def validate(self) -> float:
        """Mean loss on the validation part, with the same noise each time; keeps the best."""
        model = self.model if self.ema is None else self.ema.module
        model.eval()
        x, context = self.valid
        B, total = self.settings["batch_size"], 0.0
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.settings["seed"])
            for i in range(0, len(x), B):
                part = None if context is None else context[i : i + B].to(self.device)
                total += self.losses(model, x[i : i + B].to(self.device), part).sum().item()
        loss = total / len(x)
        self.stale += 1
        if loss < self.best_valid:  # never true of a NaN
            self.stale, self.best_valid = 0, loss
            self.best = {k: v.clone() for k, v in model.state_dict().items()}
        return loss

    def save(self, path: Path) -> None:
        state = dict(settings=self.settings, step=self.step, stale=self.stale, best=self.best)
        state |= dict(best_valid=self.best_valid, model=self.model.state_dict())
        state |= dict(opt=self.opt.state_dict(), ema=self.ema and self.ema.state_dict())
        state["rng"] = torch.get_rng_state()
        state["rng_cuda"] = (
            torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        )
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomic(path, buffer.getbuffer())

    def load(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            was = state["settings"]
        except Exception as error:
            raise ValueError(
                f"{path} is not a checkpoint of fit ({error}): remove or rename it"
            ) from error
        if was != self.settings:
            keys = [k for k in self.settings if was.get(k) != self.settings[k]]
            diff = ", ".join(f"{k}={was.get(k)} (now {self.settings[k]})" for k in keys)
            raise ValueError(f"{path} was written with {diff}: remove it, or use the same settings")
        try:
            self.model.load_state_dict(state["model"])
            self.opt.load_state_dict(state["opt"])
        except (RuntimeError, ValueError) as error:
            name = type(self.model).__name__
            raise ValueError(
                f"{path} belongs to another model than this {name}: {error}"
            ) from error
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.step, self.stale = state["step"], state["stale"]
        self.best, self.best_valid = state["best"], state["best_valid"]
        torch._foreach_copy_(self.good, self.now)
        torch.set_rng_state(state["rng"].cpu())
        if state["rng_cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["rng_cuda"].cpu(), self.device)

    def finish(self, path: Path | None) -> None:
        """Save the raw weights for a resumed run, then give the caller the ones worth having."""
        if path is not None:
            self.save(path)
        if self.best is not None:
            self.model.load_state_dict(self.best)
        elif self.ema is not None and self.step > 0:
            self.model.load_state_dict(self.ema.module.state_dict())
        self.opt.zero_grad()
        self.model.eval()
