"""The state of a training run: one step of it, its validation, its checkpoints."""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lib.paths import write_atomic
from lib.train.draws import Drawn, random_state, set_random_state
from lib.train.stopping import NUMBERS, Signals
from lib.train.workers import Workers
from lib.utils import evaluating, seeded

Data = Tensor | Callable[[int], Drawn]
TORCH = tuple(int(n) for n in torch.__version__.split(".")[:2])


class Run:
    """The state of one training run: all that a checkpoint has to hold.

    >>> from lib.flows import Affine, Flow
    >>> settings = dict(seed=0, batch_size=4, lr=0.1, weight_decay=0.0, clip=None, ema=None)
    >>> settings |= dict(schedule="constant", steps=None)
    >>> run = Run(Flow(Affine(2), 2), torch.ones(8, 2), None, None, None, 1, settings)
    >>> loss, grad_norm = run.update()
    >>> run.step
    1
    """

    def __init__(self, model, data, context, valid, amp, parts, settings):
        self.model, self.data, self.context, self.valid = model, data, context, valid
        self.amp, self.parts, self.settings = amp, parts, settings
        self.params = [p for p in model.parameters() if p.requires_grad]
        if not self.params:
            raise ValueError(f"{type(model).__name__} has no parameters to train")
        self.device = self.params[0].device
        self.workers = Workers()
        self.net = self.workers.wrap(model)
        adam = torch.optim.AdamW if settings["weight_decay"] else torch.optim.Adam
        # A fifth of the default's time on small models; on processors since torch 2.4.
        fused = self.device.type == "cuda" or (self.device.type == "cpu" and TORCH >= (2, 4))
        kwargs = dict(lr=settings["lr"], weight_decay=settings["weight_decay"], fused=fused)
        self.opt = adam(self.params, **kwargs)
        decay = settings["ema"]
        if decay is not None and any(p.dtype.itemsize < 4 for p in self.params):
            raise ValueError(
                "ema needs weights in float32: in half precision a step of the average is rounded "
                "away. Keep the model in float32 and train it with amp=torch.bfloat16"
            )
        average = None if decay is None else get_ema_multi_avg_fn(decay)
        self.ema = None if decay is None else AveragedModel(model, multi_avg_fn=average)
        self.step, self.stale, self.best, self.best_valid = 0, 0, None, math.inf
        live = {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}
        self.now = list(live.values())
        self.good = [v.clone() for v in self.now]
        weights = dict(model.named_parameters(remove_duplicate=False))
        self.buffers = [k for k, name in enumerate(live) if name not in weights]  # where in `now`
        self.epoch, self.order = None, None
        self.owed = False  # a validation that is due after this step and not done
        self.torn = False  # in the middle of changing the weights
        self.signals, self.stop = Signals(on=False), 0
        self.before = random_state(data, self.device)  # ... the step

    def batch(self) -> tuple[Tensor, Tensor | None, int]:
        """This process's rows of the step's minibatch, and how many rows that has in all.

        An epoch is a permutation that its number and the seed decide. A data function is called for
        the whole minibatch in every process, so that several train on what one would.
        """
        B = self.settings["batch_size"]
        if callable(self.data):
            drawn = self.data(B)
            x, context = drawn if isinstance(drawn, tuple) else (drawn, None)
            if context is not None and len(context) != len(x):
                raise ValueError(
                    f"the data function gave {len(x)} examples and a context of {len(context)} "
                    f"rows: each example needs one"
                )
            n, rows = len(x), self.workers.rows(len(x))
            x, context = x[rows], None if context is None else context[rows]
        else:
            epoch, i = divmod(self.step, max(1, len(self.data) // B))
            if epoch != self.epoch:
                generator = torch.Generator().manual_seed(self.settings["seed"] * 1_000_003 + epoch)
                self.epoch = epoch
                self.order = torch.randperm(len(self.data), generator=generator)
            index = self.order[i * B : (i + 1) * B]
            n = len(index)
            index = index[self.workers.rows(n)].to(self.data.device)
            x = self.data[index]
            context = None if self.context is None else self.context[index.to(self.context.device)]
        return x.to(self.device), None if context is None else context.to(self.device), n

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

    def backward(self, x: Tensor, context: Tensor | None, n: int) -> Tensor:
        """The losses of these rows; the gradient of the mean over all n is in the parameters."""
        parts = x.tensor_split(min(self.parts, len(x)))
        contexts = [None] * len(parts) if context is None else context.tensor_split(len(parts))
        done = []
        for k, (part, c) in enumerate(zip(parts, contexts, strict=True), 1):
            with self.workers.apart(self.net, more=k < len(parts)):
                losses = self.losses(self.net, part, c)
                if len(part) == n:
                    losses.mean().backward()
                else:  # DDP divides by the number of processes
                    (losses.sum() * (self.workers.size / n)).backward()
            done.append(losses.detach())
        return torch.cat(done)

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
        self.before = random_state(self.data, self.device)
        x, context, n = self.batch()
        self.opt.zero_grad()
        with self.workers.noise(self.settings["seed"], self.step, self.device):
            losses = self.backward(x, context, n)
        grads = [p.grad for p in self.params if p.grad is not None]
        norm = torch.stack(torch._foreach_norm(grads)).norm()
        if self.settings["clip"] is not None:  # as clip_grad_norm_, in a third of its time
            torch._foreach_mul_(grads, (self.settings["clip"] / (norm + 1e-6)).clamp(max=1.0))
        mean = self.agree(losses, n)
        loss, grad_norm = torch.stack([mean, norm]).tolist()  # one wait for a GPU
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            torch._foreach_copy_(self.now, self.good)
            self.opt.zero_grad()
            bad = self.workers.total((~losses.isfinite()).sum())
            raise FloatingPointError(
                f"training stopped at step {self.step + 1}: loss {loss:.4g}, gradient norm "
                f"{grad_norm:.4g}, {int(bad)} of {n} losses not finite; the model is back at the "
                f"weights of the last finite step. Try a smaller lr, clip=1.0, or look at the data"
            )
        self.torn = True
        torch._foreach_copy_(self.good, self.now)
        self.opt.step()
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        self.step += 1
        self.torn = False
        return loss, grad_norm

    def agree(self, losses: Tensor, n: int) -> Tensor:
        """The mean loss over all processes, and in `stop` the signal that any of them has seen.

        So all stop after the same step, and none waits for another that has left.
        """
        if self.workers.size == 1:
            return losses.mean()
        mine = [float(self.signals.number == number) for number in NUMBERS]
        seen = torch.cat([_sum(losses)[None] / n, losses.new_tensor(mine)])
        mean, *signals = self.workers.total(seen)
        self.stop = max(number * bool(k) for number, k in zip(NUMBERS, signals, strict=True))
        return mean.to(losses.dtype)

    @torch.no_grad()
    def validate(self) -> float:
        """Mean loss on the validation part, with the same noise each time; keeps the best."""
        self.owed = True
        model = self.model if self.ema is None else self.ema.module
        if (
            self.ema is not None
        ):  # a copy of the start: its numbers (a kl_weight) follow the model's
            for mine, its in zip(model.modules(), self.model.modules(), strict=True):
                numbers = {k: v for k, v in vars(its).items() if isinstance(v, int | float)}
                vars(mine).update(numbers)
        x, context = self.valid
        B, total, W = self.settings["batch_size"], 0.0, self.workers
        first, last = W.rank * len(x) // W.size, (W.rank + 1) * len(x) // W.size
        with evaluating(model), seeded(self.settings["seed"] + W.rank, self.device):
            for i in range(first, last, B):
                j = min(i + B, last)
                part = None if context is None else context[i:j].to(self.device)
                total += _sum(self.losses(model, x[i:j].to(self.device), part)).item()
        total = W.total(torch.tensor(total, dtype=torch.float64, device=self.device)).item()
        loss = total / len(x)
        self.stale += 1
        if loss < self.best_valid:  # never true of a NaN
            self.stale, self.best_valid = 0, loss
            state = model.state_dict()  # a model's `get_extra_state` may be no tensor
            self.best = {k: v.clone() if isinstance(v, Tensor) else v for k, v in state.items()}
        self.owed = False
        return loss

    def dump(self, random: dict[str, Any] | None = None) -> memoryview:
        """A checkpoint, whose randomness is that of now unless given."""
        state = dict(settings=self.settings, step=self.step, stale=self.stale, best=self.best)
        state |= dict(best_valid=self.best_valid, model=self.model.state_dict(), owed=self.owed)
        state |= dict(opt=self.opt.state_dict(), ema=self.ema and self.ema.state_dict())
        buffer = io.BytesIO()
        torch.save(state | (random or random_state(self.data, self.device)), buffer)
        return buffer.getbuffer()

    def save(self, path: Path, random: dict[str, Any] | None = None) -> None:
        """Write a checkpoint, or leave it to the first process."""
        if self.workers.first:
            write_atomic(path, self.dump(random))

    def resume(self, path: Path | None) -> None:
        """Go on from a checkpoint if there is one; several processes all from what the first has."""
        content = None
        if self.workers.first and path is not None and path.exists():
            content = path.read_bytes()
        if self.workers.size > 1:
            mine = content or (bytes(self.dump()) if self.workers.first else None)
            content = self.workers.of_first(mine, self.device)
        if content is not None:
            self.load(content, path)

    def load(self, content: bytes, path: Path | None) -> None:
        path = path or "what the first process sent"
        try:
            state = torch.load(io.BytesIO(content), map_location=self.device, weights_only=True)
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
            torch._foreach_copy_(self.now, self.good)  # what did fit has been copied already
            name = type(self.model).__name__
            raise ValueError(
                f"{path} belongs to another model than this {name}: {error}"
            ) from error
        # fused Adam on a processor pairs numbers by their place in memory: moments lie as weights do
        for p, moments in self.opt.state.items():
            for k in moments.keys() - {"step"}:
                moments[k] = torch.empty_like(p).copy_(moments[k])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.step, self.stale = state["step"], state["stale"]
        self.best, self.best_valid = state["best"], state["best_valid"]
        self.owed = state.get("owed", False)
        torch._foreach_copy_(self.good, self.now)
        set_random_state(state, self.data, self.device)

    def rescue(self, path: Path | None) -> str:
        """Save what the last whole step left, after an error; a phrase that says where it is."""
        self.opt.zero_grad()
        if not self.torn:  # the step that failed has moved none of the weights, and maybe a buffer
            for k in self.buffers:
                self.now[k].copy_(self.good[k])
        if path is None:
            return "no checkpoint was asked for"
        if self.workers.first and not self.torn:
            self.save(path, None if self.owed else self.before)
            return f"{path} holds the training up to step {self.step}"
        return f"{path} is the last checkpoint" if path.exists() else f"{path} is not written yet"

    def finish(self, path: Path | None) -> None:
        """Save the raw weights for a resumed run, then give the caller the ones worth having."""
        if path is not None:
            self.save(path)
        if self.best is not None and self.valid is not None:
            self.model.load_state_dict(self.best)
        elif self.ema is not None and self.step > 0:
            self.model.load_state_dict(self.ema.module.state_dict())
        self.opt.zero_grad()
        self.model.eval()


def _sum(losses: Tensor) -> Tensor:
    """In float32 at least: in float16 it could be past 65504, where each loss and the mean are not."""
    return losses.sum(dtype=torch.promote_types(losses.dtype, torch.float32))
