"""Several processes train as one would; each noise is its own; one that is killed ends all, and the job resumes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lib import weights
from lib.train import __main__ as command
from lib.train.state import Run
from lib.train.workers import Workers, device_here, joined, lost


def torchrun(n, *words):
    where = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}"]
    # torchrun ends the others as soon as it misses one: later, so that they can say what they saw.
    return [*where, "--monitor-interval=3", *map(str, words)]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What each process of jobs of one, two and four saw."""
    folder = tmp_path_factory.mktemp("together")
    words = [sys.executable, Path(__file__).with_name("together.py"), folder]
    run = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stderr
    read = lambda n, k: json.loads(Path(folder, f"{n}-{k}.json").read_text())
    return {n: [read(n, k) for k in range(n)] for n in (1, 2, 4)}


@pytest.mark.parametrize("n", [2, 4])
def test_the_same_curve_as_one_process(n, told):
    """Losses, validation losses, gradient norms, and weights at the end, in every process."""
    (alone,), every = told[1], told[n]
    assert alone["size"] == 1 and len(alone["curves"]) == 8
    for worker in every:
        assert worker["size"] == n and worker["curves"] == every[0]["curves"]  # to the bit
        for name, curve in worker["curves"].items():
            got, want = torch.tensor(curve), torch.tensor(alone["curves"][name])
            assert got.shape == want.shape, name
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: n + m)
    assert 6 < len(alone["curves"]["stopped early"]) < 41


@pytest.mark.parametrize("n", [2, 4])
def test_each_process_has_noise_of_its_own(n, told):
    """Seed, step and rank decide what a model draws, and torch's generator does not."""
    for worker in told[n]:
        assert worker["noise"] == worker["again"]
    drawn = [tuple(step) for worker in told[n] for step in worker["noise"]]
    assert len(set(drawn)) == len(drawn) == 4 * n
    assert all(len(step) == 8 // n * 2 for step in drawn)


@pytest.mark.parametrize("n", [2, 4])
def test_a_codebook_is_placed_alike_in_every_process(n, told):
    """Each sees other rows of the first minibatch, and DDP sends no parameter around later."""
    for worker in told[n]:
        assert worker["codes"] == told[n][0]["codes"]


def test_a_single_process_has_it_all():
    alone = Workers()
    assert (alone.size, alone.first, alone.rows(5)) == (1, True, slice(0, 5))
    model = torch.nn.Linear(2, 2)
    assert alone.wrap(model) is model
    with joined(torch.device("cpu")) as workers:
        assert workers.size == 1
    state = torch.get_rng_state()
    with alone.noise(0, 0, torch.device("cpu")):
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_shares_cover_a_minibatch(size):
    workers = [Workers() for _ in range(size)]
    for rank, worker in enumerate(workers):
        worker.rank, worker.size = rank, size
    for n in range(size, 20):
        shares = [list(range(n))[worker.rows(n)] for worker in workers]
        assert sum(shares, []) == list(range(n))
        assert {len(share) for share in shares} <= {n // size, n // size + 1}
    with pytest.raises(ValueError, match=f"a minibatch of {size - 1} is too small for {size}"):
        workers[0].rows(size - 1)


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.delenv("BOOK_DEVICE", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert device_here("cuda") == torch.device("cuda:3") and device_here("cpu").type == "cpu"
    monkeypatch.setenv("BOOK_DEVICE", "meta")
    assert device_here().type == "meta"


def test_what_a_lost_process_sounds_like():
    assert lost(RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer"))
    assert lost(torch.distributed.DistBackendError("NCCL error"))
    assert not lost(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not lost(ValueError("gloo"))


def children(pid):
    """The processes that `pid` started, by their number."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(stat.parent.name))
        except OSError:
            pass
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_lost_ends_the_job_which_then_resumes(number, tmp_path):
    """SIGKILL to one worker; SIGTERM to torchrun, as a cluster sends it before it takes the machine."""
    path, to = tmp_path / "run.pt", tmp_path / "stored"
    words = ["digits_plane", "--device", "cpu", "--to", to, "--mode", "full", "--steps", "300"]
    words += ["--checkpoint", path, "--checkpoint-every", "10"]
    job = subprocess.Popen(
        torchrun(2, "-m", "lib.train", *words),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"TQDM_DISABLE": "1"},
    )
    while not path.exists() and job.poll() is None:
        time.sleep(0.02)
    workers = sorted(children(job.pid))
    os.kill(job.pid if number == signal.SIGTERM else workers[1], number)
    # torchrun does so too, a tenth of a second later: which end comes first is luck
    if number == signal.SIGKILL:
        os.kill(workers[0], signal.SIGTERM)
    said = job.communicate(timeout=300)[1]
    assert job.returncode != 0 and not to.exists()
    step = torch.load(path, weights_only=True)["step"]
    assert 10 <= step < 300
    if number == signal.SIGTERM:
        assert re.search(r"SIGTERM after step \d+: .*run.pt holds everything", said)
    else:
        assert re.search(r"ConnectionError: process \d of 2 lost another one in step \d+", said)
        assert "the same command goes on from there" in said
    # on as one process: a checkpoint does not know how many wrote it
    command.main([str(word) for word in words])
    assert weights.card("digits_plane", to)["curve"][-1][0] == 300


def test_a_mean_over_processes_of_half_precision_losses_is_summed_in_float32():
    """Of 256 losses of 500 here and as many there, the sum is past the end of float16."""
    settings = dict(seed=0, batch_size=4, lr=0.1, weight_decay=0.0, clip=None, ema=None)
    settings |= dict(schedule="constant", steps=None)
    run = Run(torch.nn.Linear(1, 1), torch.ones(8, 1), None, None, None, 1, settings)
    run.workers.size, run.workers.total = 2, lambda values: 2 * values
    mean = run.agree(torch.full((256,), 500.0, dtype=torch.float16), 512)
    assert mean.item() == 500 and mean.dtype == torch.float16
