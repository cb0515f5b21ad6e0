"""What the dense start does to the layers."""

from __future__ import annotations

from tsl_latentgnn.engines import DenseStart
from tsl_latentgnn.models import Seq2SeqLatentGNN
from tsl_latentgnn.nn import LatentCorrelationGCN

import pytest
import pytorch_lightning as pl
import torch
from small import HORIZON, NODES, WINDOW, make, make_data, make_trainer

# The imports above mend tsl, where it has to be.
from tsl.engines import Predictor  # isort: skip
from tsl.metrics.torch import MaskedMAE  # isort: skip
from tsl.nn.models import RNNModel  # isort: skip

pytestmark = [
    pytest.mark.tsl,
    pytest.mark.filterwarnings("ignore:.*have no logger configured"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


class Watch(pl.Callback):
    """Notes of each batch of the training its epoch, and whether the latent layers are dense."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        layers = [m for m in pl_module.modules() if isinstance(m, LatentCorrelationGCN)]
        (dense,) = {layer.dense_training for layer in layers}
        self.seen.append((trainer.current_epoch, dense))


class Plain(pl.LightningModule):
    """A LightningModule that knows nothing of tsl."""

    def __init__(self):
        super().__init__()
        self.net = Seq2SeqLatentGNN(1, 4, NODES, HORIZON, k_neighbors=2)

    def training_step(self, batch, batch_idx):
        return self.net(batch)[0].square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def train(tmp_path, predictor, *callbacks, epochs=3, **options):
    """Which batches were dense, after a training."""
    watch = Watch()
    trainer = make_trainer(tmp_path, epochs, [*callbacks, watch])
    torch.manual_seed(0)
    trainer.fit(predictor, datamodule=make_data(), **options)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    return watch.seen


def dense_epochs(seen):
    return sorted({epoch for epoch, dense in seen if dense})


def make_tsl_predictor():
    return Predictor(make().model, MaskedMAE(), optim_class=torch.optim.Adam)


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_a_dense_start_lasts_its_epochs(tmp_path, epochs):
    for seen in (
        train(tmp_path, make(dense_epochs=epochs)),
        train(tmp_path, make(), DenseStart(epochs)),
        train(tmp_path, make_tsl_predictor(), DenseStart(epochs)),
    ):
        assert {epoch for epoch, _ in seen} == {0, 1, 2}
        assert dense_epochs(seen) == list(range(epochs))


def test_a_dense_start_is_the_same_by_argument_and_by_callback(tmp_path):
    argument, callback, sparse = make(dense_epochs=1), make(), make()
    train(tmp_path, argument)
    train(tmp_path, callback, DenseStart(1))
    train(tmp_path, sparse)
    pairs = list(zip(argument.parameters(), callback.parameters(), strict=True))
    assert all(torch.equal(one, other) for one, other in pairs)
    pairs = zip(argument.parameters(), sparse.parameters(), strict=True)
    assert not all(torch.equal(one, other) for one, other in pairs)


def test_the_argument_takes_the_place_of_the_callback(tmp_path):
    assert dense_epochs(train(tmp_path, make(dense_epochs=1), DenseStart(2))) == [0]
    predictor, trainer = make(dense_epochs=1), make_trainer(tmp_path)
    trainer.fit(predictor, datamodule=make_data())
    before = list(trainer.callbacks)
    trainer.test(predictor, datamodule=make_data(), verbose=False)
    assert trainer.callbacks == before  # which Lightning would announce


def test_a_dense_start_that_was_not_over_ends_with_the_training(tmp_path):
    predictor = make()
    assert dense_epochs(train(tmp_path, predictor, DenseStart(9))) == [0, 1, 2]
    assert not any(getattr(module, "dense_training", False) for module in predictor.modules())


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_dense_start_goes_on_where_the_training_does(tmp_path, epochs):
    train(tmp_path, make(), DenseStart(2), epochs=epochs)
    # A fresh layer is not dense, and one that was may have stayed so.
    for stale in (False, True):
        predictor = make()
        for layer in predictor.modules():
            layer.dense_training = stale
        path = tmp_path / "last.ckpt"
        seen = train(tmp_path / "on", predictor, DenseStart(2), ckpt_path=path)
        assert dense_epochs(seen) == list(range(epochs, 2))
        assert seen[-1] == (2, False)


def test_a_dense_start_goes_on_in_the_midst_of_an_epoch(tmp_path):
    half = pl.callbacks.ModelCheckpoint(tmp_path, "half", every_n_train_steps=1, save_top_k=1)
    trainer = make_trainer(tmp_path, callbacks=[half, DenseStart(1)], max_steps=1)
    trainer.fit(make(), datamodule=make_data())
    path = tmp_path / "half.ckpt"
    seen = train(tmp_path / "on", make(), DenseStart(1), epochs=2, ckpt_path=path)
    epochs = [epoch for epoch, _ in seen]
    assert epochs.count(0) == epochs.count(1) - 1
    assert dense_epochs(seen) == [0]


def test_a_dense_start_of_a_plain_module(tmp_path):
    watch = Watch()
    trainer = make_trainer(tmp_path, 2, [DenseStart(1), watch])
    trainer.fit(Plain(), torch.utils.data.DataLoader(torch.randn(4, WINDOW, NODES, 1), 2))
    assert watch.seen == [(0, True)] * 2 + [(1, False)] * 2


def test_a_dense_start_needs_a_latent_layer(tmp_path):
    rnn = RNNModel(1, 1, HORIZON, hidden_size=4)
    predictor = Predictor(rnn, MaskedMAE(), optim_class=torch.optim.Adam)
    with pytest.raises(ValueError, match=r"'epochs' must be 0 .* latent graph \(got 3 with "):
        train(tmp_path, predictor, DenseStart(3))
    with pytest.raises(ValueError, match="'epochs' must be an int >= 0"):
        DenseStart(-1)
    with pytest.raises(TypeError, match="'epochs' must be an int"):
        DenseStart(1.5)
