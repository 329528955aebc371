import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded():
    """Weights and inputs that tests draw are the same in every run."""
    torch.manual_seed(0)
