"""The weights that a forecaster keeps are an average over the steps of its training."""

from tsl_latentgnn import Forecaster
from tsl_latentgnn.forecaster.averaging import WeightAverage

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_lightning import Callback


class Note(Callback):
    """Keeps the weights after each step, and says what the network weighs while it is validated."""

    def __init__(self):
        self.steps, self.validated = [], []

    def __deepcopy__(self, memo):
        return self

    @staticmethod
    def weights(module):
        return torch.cat([w.detach().double().flatten() for w in module.parameters()])

    def on_train_start(self, trainer, pl_module):
        self.start = self.weights(pl_module)

    def on_train_batch_end(self, trainer, pl_module, *rest):
        self.steps.append(self.weights(pl_module))

    def on_validation_batch_end(self, trainer, pl_module, *rest):
        self.validated.append((len(self.steps), self.weights(pl_module)))


@pytest.fixture
def readings():
    rng = np.random.default_rng(0)
    index = pd.date_range("2024-03-04", periods=300, freq="h", name="ds")
    return pd.DataFrame(rng.normal(size=(300, 3)).cumsum(0), index=index, columns=list("abc"))


def average(start, steps):
    """In float64, a step after the other."""
    kept = start
    for number, weights in enumerate(steps, 1):
        share = min(0.99, number / (number + 9))
        kept = share * kept + (1 - share) * weights
    return kept


@pytest.mark.parametrize("preset", ["state", "discovery"])
def test_the_average_is_validated_and_kept(preset, readings):
    note, options = Note(), {"window": 12, "epochs": 3, "verbose": False, "accelerator": "cpu"}
    one = {"latent_layers": 1, "gate": False}  # a single network
    fitted = Forecaster(
        3, **options, preset=preset, lr=0.02, model_kwargs=one, trainer_kwargs={"callbacks": [note]}
    ).fit(readings)
    steps = len(note.steps) // 3
    done = steps * (fitted.best_epochs_[0] + 1)
    kept = Note.weights(fitted.model_.network)
    (last,) = [weights for number, weights in note.validated if number == done]
    torch.testing.assert_close(last, kept)
    if preset == "discovery":  # whose weights are shrunk to 0
        torch.testing.assert_close(kept, note.steps[done - 1])
        return
    expected = average(note.start, note.steps[:done])
    torch.testing.assert_close(kept, expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(kept, note.steps[done - 1], rtol=1e-3, atol=1e-3)


def test_the_training_goes_on_with_the_weights_themselves():
    module = torch.nn.Linear(2, 2)
    callback = WeightAverage()
    callback._swap(module)  # a look before the training
    callback.on_train_start(None, module)
    start = module.weight.detach().clone()
    with torch.no_grad():
        module.weight.add_(1.0)
    callback.on_train_batch_end(None, module, None, None, 0)
    callback.on_validation_start(None, module)
    torch.testing.assert_close(module.weight.detach(), start + 0.9)
    callback.on_validation_end(None, module)
    torch.testing.assert_close(module.weight.detach(), start + 1.0)
    another = WeightAverage()
    another.load_state_dict(callback.state_dict())
    another.on_train_start(None, module)
    another.on_validation_start(None, module)
    torch.testing.assert_close(module.weight.detach(), start + 0.9)
