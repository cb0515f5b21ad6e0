"""The memory of a training, against what PyTorch's allocator counts."""

from __future__ import annotations

from tsl_latentgnn.engines import memory
from tsl_latentgnn.engines.memory import MemoryWarning, free_bytes

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback
from small import make, make_trainer

from tsl.data import SpatioTemporalDataModule, SpatioTemporalDataset, TemporalSplitter  # isort: skip

pytestmark = [pytest.mark.tsl, pytest.mark.filterwarnings("ignore::UserWarning")]

NODES = 60


def make_data(batch_size):
    target = torch.randn(80, NODES, 1, generator=torch.Generator().manual_seed(0))
    data = SpatioTemporalDataModule(
        SpatioTemporalDataset(target, window=12, horizon=3),
        splitter=TemporalSplitter(val_len=0.1, test_len=0.1),
        batch_size=batch_size,
    )
    data.setup()
    return data


class Peak(Callback):
    """The most memory that a step has beyond what there is before it, and the gradients and moments that stay."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.profile = torch.profiler.profile(profile_memory=True)
        self.profile.__enter__()

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.profile.__exit__(None, None, None)
        found = self.profile.profiler.kineto_results.events()
        found = sorted((e.start_ns(), e.nbytes()) for e in found if e.name() == "[memory]")
        self.bytes = max(np.cumsum([size for _, size in found]))


@pytest.mark.parametrize(
    ("batch_size", "options", "dense"),
    [
        (4, {"hidden_size": 16}, 0),
        (16, {"hidden_size": 16, "preset": "state", "modes": None}, 0),
        (16, {"hidden_size": 16, "preset": "state", "modes": None, "dropout": 0.3}, 1),
    ],
)
def test_an_estimate_is_within_twice_what_is_measured(tmp_path, batch_size, options, dense):
    kwargs = {"n_nodes": NODES, **options}
    weights = []
    for callbacks in ([MemoryWarning(), Peak()], []):
        predictor = make(model=kwargs, dense_epochs=dense)
        trainer = make_trainer(
            tmp_path, callbacks=callbacks, limit_train_batches=1, limit_val_batches=0
        )
        trainer.fit(predictor, datamodule=make_data(batch_size))
        weights.append(predictor.state_dict())
        if callbacks:
            estimate, measured = callbacks[0].bytes, callbacks[1].bytes
            assert measured / 2 < estimate < 2 * measured
    # Whoever looks changes nothing.
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_what_does_not_fit_is_said_before_the_first_step(tmp_path, monkeypatch):
    warning = MemoryWarning()
    options = {"limit_train_batches": 1, "limit_val_batches": 0}
    predictor = make(model={"n_nodes": NODES})
    make_trainer(tmp_path, callbacks=[warning], **options).fit(predictor, datamodule=make_data(16))
    fixed = warning.bytes
    for free, said in ((0.6 * fixed, r"'batch_size' of at most \d+ would fit"), (10.0, "Take a")):
        monkeypatch.setattr(memory, "free_bytes", lambda _, free=free: int(free))
        again = make_trainer(tmp_path, callbacks=[MemoryWarning()], **options)
        with pytest.warns(UserWarning, match=f"takes about .* GiB, for 16 windows.* {said}"):
            again.fit(make(model={"n_nodes": NODES}), datamodule=make_data(16))


def test_the_free_memory_is_that_of_the_machine():
    import psutil

    free = free_bytes(torch.device("cpu"))
    assert 0 < free <= psutil.virtual_memory().total
