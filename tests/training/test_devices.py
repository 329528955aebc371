from concurrent.futures import ThreadPoolExecutor

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


def test_a_network_that_is_in_place_is_left_alone(monkeypatch) -> None:
    """Threads place the network that they share, each before its first batch."""
    cpu, module = torch.device("cpu"), torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    moved: list[torch.nn.Module] = []
    move = torch.nn.Module.to

    def noted(self, *arguments, **options):
        moved.append(self)
        return move(self, *arguments, **options)

    monkeypatch.setattr(torch.nn.Module, "to", noted)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: devices.place(module, cpu), range(64))) == {module}
    assert moved == [module]
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last)
    module.add_module("late", torch.nn.Conv2d(4, 2, 3))
    devices.place(module, cpu)
    assert moved == [module, module]
