import pytest
import torch
from torch import nn

from imatlas.errors import ParameterError
from imatlas.training import devices


def test_auto_is_an_available_device():
    assert devices.pick_device("auto").type in ("cpu", "cuda", "mps")
    assert devices.pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "nosuch"])
def test_an_unavailable_device_is_refused(name):
    with pytest.raises(ParameterError, match=f"'{name}'"):
        devices.pick_device(name)


def test_bf16_runs_in_bf16_and_weights_stay():
    linear, x = nn.Linear(4, 4), torch.ones(2, 4)
    with devices.autocast(torch.device("cpu"), "bf16"):
        assert linear(x).dtype == torch.bfloat16
    with devices.autocast(torch.device("cpu"), "fp32"):
        assert linear(x).dtype == torch.float32
    assert linear.weight.dtype == torch.float32


def test_out_of_memory_errors_are_recognized():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50, dtype=torch.float32)
    assert devices.is_out_of_memory(error.value)
    assert devices.is_out_of_memory(MemoryError())
    assert not devices.is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
