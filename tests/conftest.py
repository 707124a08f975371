"""Fixtures that every test may use."""

import os

import pytest
import torch

# Two runners share a machine: more threads make small tensors slower, and sums less repeatable.
torch.set_num_threads(1)
torch.backends.cudnn.allow_tf32 = (
    False  # on by default: a GPU's float32 would have 10 bits of fraction
)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
if os.environ.get("BOOK_STANDIN") == "1":
    from tests.standin import install

    DEVICES.append(install().type)
    LIMITS = {  # what torch says, and what it comes from
        "Autocast": "the stand-in has no autocast",
    }

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(item):
        """Skip what the stand-in cannot do and a card can."""
        try:
            return (yield)
        except NotImplementedError as error:
            for sign, reason in LIMITS.items():
                if sign in str(error):
                    pytest.skip(reason)
            raise


@pytest.fixture(params=DEVICES)
def device(request) -> torch.device:
    """The CPU always, the GPU where there is one, and the stand-in for one with BOOK_STANDIN=1."""
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
