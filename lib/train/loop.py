"""`fit`: the loop around a training run's steps."""

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from lib.train.draws import check_repeats
from lib.train.state import Data, Run
from lib.train.stopping import Signals, Stopped, memory_is_out
from lib.train.workers import lost
from lib.utils import check_batch, check_count


class Update(NamedTuple):
    """What `fit` yields after each update.

    >>> from lib.flows import Affine, Flow
    >>> [update.step for update in fit(Flow(Affine(2), 2), torch.ones(5, 2), steps=3)]
    [1, 2, 3]
    """

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
    parts: int = 1,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    progress: bool = True,
) -> Iterator[Update]:
    """Train by Adam (AdamW with weight_decay); yields an `Update` after each step, so iterate it.

    The model is called as `model(x, context)` and returns one loss for each example, (B,), in nats.
    When the loop ends (or is left by `break`) it is in eval mode and holds the best weights seen on
    `valid`, else the averaged weights if `ema` is set, else the last ones. Where minibatches are
    drawn from does not depend on torch's global seed.

    Where torch.distributed is in use (`lib.train.workers`), its processes share each minibatch: same
    examples, same steps as in one process, up to rounding and the model's own noise.

    Args:
        data: examples (N, ...), with `context` (N, ...) beside them if the model takes one; or a
            function batch_size -> x or (x, context) that draws new examples from torch's global
            generator, or is a `Draws`.
        schedule: "cosine" lowers the learning rate to 0 over `steps`, "constant" leaves it.
        clip: largest norm of the gradient.
        ema: decay of an exponential moving average of the weights, which is then what is validated.
        valid: held-out examples, or (examples, context); their loss is computed every `valid_every`
            steps (default steps / 50) with the same noise each time.
        patience: stop after so many validations in a row without a new best.
        amp: torch.bfloat16 runs the model under autocast.
        parts: the minibatch goes through the model in so many parts, whose gradients add up: the
            same training in less memory, where the model neither draws noise nor mixes examples.
        checkpoint: a file to resume from if it exists, written every `checkpoint_every` steps and
            at the end, with everything a resumed run needs to give the same weights (on a CPU, to
            the bit). A run that is complete already yields nothing: the model gets its weights.
            SIGINT and SIGTERM then wait for the end of a step and write it too.

    Raises:
        ValueError, TypeError: a mistake in the arguments, the model's loss, or a checkpoint from
            other settings.
        FloatingPointError: the loss or its gradient is not finite; the model is left with the
            weights of the last step where both were.
        MemoryError: a minibatch did not fit; the checkpoint is written, the message says what helps.
        ConnectionError: another process of the job is gone; likewise.
        Stopped: a KeyboardInterrupt, after SIGINT or SIGTERM, once the checkpoint is written.

    >>> from lib.flows import Affine, Flow
    >>> flow, data = Flow(Affine(2), 2), 3 + torch.randn(1000, 2)
    >>> *_, last = fit(flow, data, steps=300, lr=0.1)
    >>> last.step, (flow.sample(1000).mean(0) - 3).abs().max() < 0.3
    (300, tensor(True))
    """
    check_count(steps, "steps")
    check_count(batch_size, "batch_size")
    check_count(checkpoint_every, "checkpoint_every")
    check_count(parts, "parts")
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
    # numpy's numbers as Python's: a checkpoint holds them, and is read with weights_only=True
    settings = {k: v.item() if hasattr(v, "item") else v for k, v in settings.items()}
    run = Run(model, data, context, valid, amp, parts, settings)
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


def _updates(run: Run, steps: int, path: Path | None, every: int, hide: bool) -> Iterator[Update]:
    several = run.workers.size > 1
    if callable(run.data) and (several or path is not None):
        check_repeats(run.data, run.settings["batch_size"], run.device)
    run.resume(path)
    start, hide = time.perf_counter(), hide or not run.workers.first
    # disable=None hides the bar where there is neither a terminal nor a notebook
    with (
        tqdm(total=steps, initial=run.step, disable=hide or None) as bar,
        Signals(path is not None, patient=several) as run.signals,
    ):
        try:
            if run.owed:
                run.validate()
            while run.step < steps and run.stale < run.patience and not run.stop:
                loss, grad_norm = run.update()
                last = run.step == steps
                due = run.valid is not None and (run.step % run.valid_every == 0 or last)
                valid = run.validate() if due else None
                if path is not None and run.step % every == 0 and not last:
                    run.save(path)
                bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
                bar.update()
                yield Update(run.step, loss, valid, grad_norm, time.perf_counter() - start)
                if not several:
                    run.stop = run.signals.number
        except GeneratorExit:  # the caller left the loop
            run.finish(path)
            raise
        except (RuntimeError, MemoryError) as error:
            told = _explained(error, run, path)
            if told is None:
                raise
            raise told from error
        run.finish(path)
        if run.stop:
            run.signals.acted = True
            raise Stopped(run.stop, run.step, path)


def _explained(error: Exception, run: Run, path: Path | None) -> Exception | None:
    """What to do where memory has run out or another process has gone; None of other errors."""
    step = f"step {run.step + 1}"
    if memory_is_out(error):
        if run.device.type == "cuda":
            torch.cuda.empty_cache()
        B, twice = run.settings["batch_size"], 2 * run.parts
        return MemoryError(
            f"out of memory in {step} with {B} examples in {run.parts} part(s); "
            f"{run.rescue(path)}. Give parts={twice}, which computes the same step from smaller "
            f"pieces, and the same call goes on from there; or start anew with a smaller batch_size"
        )
    if run.workers.size > 1 and lost(error):
        # torchrun sends SIGTERM to whoever is left, and may be first: this error ends the run, and says why
        run.signals.acted = True
        return ConnectionError(
            f"process {run.workers.rank} of {run.workers.size} lost another one in {step}; "
            f"{run.rescue(path)}, and the same command goes on from there"
        )
    return None
