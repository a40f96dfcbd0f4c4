"""One thread a worker: the suite runs in as many processes as there are cores."""

import sys

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _compilation_is_left_as_it_was():
    """A guard forces compiled code to run as it was written: afterwards it must not."""
    yield
    compiler = sys.modules.get("torch._dynamo.eval_frame")
    assert compiler is None or compiler._stance.stance == "default"
