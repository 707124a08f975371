"""Ends of a training that are not its own: a signal, too little memory, another process that died."""

import signal
import threading
from pathlib import Path

import torch

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal ended the training after a whole step, and the checkpoint is written.

    >>> print(Stopped(signal.SIGTERM, 7, Path("run.pt")))
    SIGTERM after step 7: run.pt holds everything, the same call goes on from there
    """

    def __init__(self, number: int, step: int, path: Path):
        self.signal = number
        super().__init__(
            f"{signal.Signals(number).name} after step {step}: {path} holds everything, "
            f"the same call goes on from there"
        )


class Signals:
    """`with Signals() as seen:` notes SIGINT and SIGTERM in `seen.number` for the loop to act on.

    A step is never cut in two. Of a signal that comes twice the second acts at once, unless `patient`:
    torchrun repeats the terminal's. On leaving, the former handlers are back, and get a signal
    that nobody has acted on. Does nothing away from the main thread, where Python has no signals.

    >>> with Signals() as seen:
    ...     signal.raise_signal(signal.SIGTERM)  # noted, and the step goes on
    ...     seen.acted = True
    >>> seen.number == signal.SIGTERM
    True
    """

    def __init__(self, on: bool = True, patient: bool = False):
        self.number, self.acted, self.patient, self.former = 0, False, patient, {}
        self.on = on and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "Signals":
        for number in NUMBERS if self.on else ():
            if signal.getsignal(number) != signal.SIG_IGN:  # as for a job behind `nohup` or `&`
                self.former[number] = signal.signal(number, self._note) or signal.SIG_DFL
        return self

    def __exit__(self, *_) -> None:
        self.on = False
        for number, handler in self.former.items():
            if signal.getsignal(number) == self._note:  # else a later one of ours sits there
                signal.signal(number, handler)
        if self.number and not self.acted:
            signal.raise_signal(self.number)

    def _note(self, number: int, frame) -> None:
        if self.on and (not self.number or self.patient):
            self.number = number
            return
        self.acted = True
        signal.signal(number, self.former[number])
        signal.raise_signal(number)


def memory_is_out(error: BaseException) -> bool:
    """Whether it says that a tensor did not fit, on a GPU or in the machine's memory.

    >>> memory_is_out(RuntimeError("CUDA out of memory")), memory_is_out(ValueError("no"))
    (True, False)
    """
    said = str(error).lower()
    return isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and any(text in said for text in ("out of memory", "allocate memory", "not enough memory"))
    )
