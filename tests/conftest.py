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
    LIMITS = {  # what is said, and what it comes from
        "Autocast": "the stand-in has no autocast",
        "cannot be pickled": "the stand-in's tensors cannot be stored",
    }
    KEEPS = "lib.train keeps the random state of the processor and of CUDA, of no other device"
    UNABLE = {
        "test_validation_leaves_the_training_alone": KEEPS,
        "test_resume_gives_the_same_weights_to_the_bit": KEEPS,
    }

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(item):
        """Skip what the stand-in cannot do and a card can."""
        given = item.callspec.params.get("device") if hasattr(item, "callspec") else None
        if given == DEVICES[-1] and item.originalname in UNABLE:
            pytest.skip(UNABLE[item.originalname])
        try:
            return (yield)
        except (NotImplementedError, TypeError) as error:
            for sign, reason in LIMITS.items():
                if given == DEVICES[-1] and sign in str(error):
                    pytest.skip(reason)
            raise


@pytest.fixture(params=DEVICES)
def device(request) -> torch.device:
    """The CPU always, the GPU where there is one, and the stand-in for one with BOOK_STANDIN=1."""
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
