"""The group lasso against its closed form, and trainings with it against a loop."""

from __future__ import annotations

from tsl_latentgnn.engines import DenseStart, GroupLasso, group_lasso
from tsl_latentgnn.engines.group_lasso import has_edges, shrink
from tsl_latentgnn.nn import LatentCorrelationGCN

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from scipy.optimize import minimize
from torch.utils.data import DataLoader, IterableDataset

NODES, HEADS = 5, 2
X = torch.randn(24, NODES, 2, generator=torch.Generator().manual_seed(0))


class Plain(pl.LightningModule):
    def __init__(self, optimizer=torch.optim.Adam, **options):
        super().__init__()
        torch.manual_seed(1)
        options = {"weights": "signed", "dynamic": False, "heads": HEADS, **options}
        self.net = LatentCorrelationGCN(2, 2, NODES, **options)
        self.optimizer = optimizer

    def loss(self, x):
        return (self.net(x) - x.roll(1, 1)).square().mean()

    def training_step(self, x, _):
        return self.loss(x)

    def configure_optimizers(self):
        optimizer = self.optimizer(self.parameters(), lr=0.05)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def make_trainer(tmp_path, epochs, callbacks, **options):
    return pl.Trainer(
        max_epochs=epochs,
        default_root_dir=tmp_path,
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        **{"enable_checkpointing": False, **options},
    )


def loader():
    return DataLoader(X, batch_size=4)


class Endless(IterableDataset):
    def __iter__(self):
        return iter(X)


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def objective(c, before, by):
    return 0.5 * ((c - before) ** 2).sum() + by * np.sqrt((c**2).sum())


@pytest.mark.parametrize("heads", [1, 3])
def test_a_step_is_the_proximal_one(heads):
    weights = torch.randn(4, 3, heads, dtype=torch.double)
    weights[1, 2] = 0.0
    weights[0, 0] *= 0.01
    shrunk = weights.clone()
    shrink(shrunk, 0.3)
    for before, after in zip(weights.view(-1, heads), shrunk.view(-1, heads), strict=True):
        size = float(before.norm())
        by = 0.3 * heads**0.5
        closed = before * (1 - by / size) if size > by else torch.zeros(heads)
        torch.testing.assert_close(after, closed.double())

        arguments = before.numpy(), by
        least = minimize(objective, before.numpy() + 0.1, arguments, "Nelder-Mead", tol=1e-12)
        assert objective(after.numpy(), *arguments) <= least.fun + 1e-9
    assert (shrunk == 0).all(-1).any()


@pytest.mark.parametrize("dense", [0, 1])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_a_training_is_a_loop_with_a_shrinkage_after_each_step(
    tmp_path, optimizer, accumulate, dense
):
    module, callback = Plain(optimizer), GroupLasso(2.0, dense)
    trainer = make_trainer(tmp_path, 2, [callback], accumulate_grad_batches=accumulate)
    trainer.fit(module, loader())

    other = Plain(optimizer)
    chosen = other.configure_optimizers()
    step, schedule = chosen["optimizer"], chosen["lr_scheduler"]["scheduler"]
    batches = list(loader())
    for epoch in range(2):
        for first in range(0, len(batches), accumulate):
            step.zero_grad()
            for x in batches[first : first + accumulate]:
                (other.loss(x) / accumulate).backward()
            by = 2.0 * step.param_groups[0]["lr"] * HEADS**0.5
            step.step()
            schedule.step()
            if epoch < dense:
                continue
            with torch.no_grad():
                for group in other.net.learner.correlation.view(-1, HEADS):
                    group *= max(0.0, 1 - by / max(float(group.norm()), 1e-30))
    for ours, naive in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, naive)
    assert (module.net.learner.correlation == 0).any()


@pytest.mark.parametrize("dense", [0, 1, 3])
def test_a_training_that_goes_on_is_as_one_that_was_never_ended(tmp_path, dense):
    def callbacks():
        return [GroupLasso(dense_epochs=dense)]

    whole = Plain()
    make_trainer(tmp_path, 4, callbacks()).fit(whole, loader())
    first = Plain()
    trainer = make_trainer(tmp_path, 2, callbacks(), enable_checkpointing=True)
    trainer.fit(first, loader())
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    second = Plain()
    make_trainer(tmp_path, 4, callbacks()).fit(
        second, loader(), ckpt_path=str(tmp_path / "half.ckpt")
    )
    for ours, other in zip(second.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, other)


@pytest.mark.parametrize("limit", [1.0, 2])
@pytest.mark.parametrize(
    ("batch", "accumulate", "strength"),
    [(1, 1, 2 / 22**0.5), (1, 2, 0.5), (24, 1, 0.5), (24, 4, 0.5)],
)
def test_the_strength_by_the_data(tmp_path, monkeypatch, batch, accumulate, strength, limit):
    monkeypatch.setattr(group_lasso, "MAX_WINDOWS", 22)
    results = []
    for callback in (GroupLasso(), GroupLasso(strength)):
        options = {"accumulate_grad_batches": accumulate, "limit_train_batches": limit}
        module = Plain()
        trainer = make_trainer(tmp_path, 1, [callback], **options)
        trainer.fit(module, DataLoader(X, batch_size=batch))
        results.append(module.net.learner.correlation.detach())
    assert torch.equal(*results)


def test_after_a_training_the_optimizer_is_as_it_was_made(tmp_path):
    module = Plain()
    trainer = make_trainer(tmp_path, 1, [GroupLasso(), DenseStart(1)])
    trainer.fit(module, loader())
    (optimizer,) = trainer.optimizers
    before = module.net.learner.correlation.detach().clone()
    optimizer.zero_grad()
    for group in optimizer.param_groups:
        group["lr"] = 1.0
    optimizer.step()  # without gradients nothing moves
    assert torch.equal(module.net.learner.correlation, before)


@pytest.mark.parametrize(
    ("options", "came"),
    [
        ({"weights": "softmax"}, "got weights='softmax', static='full' and dynamic=False"),
        ({"static": 2}, "got weights='signed', static=2 and dynamic=False"),
        ({"dynamic": True}, "got weights='signed', static='full' and dynamic=True"),
    ],
)
def test_a_graph_that_cannot_be_shrunk_is_refused(tmp_path, options, came):
    with pytest.raises(ValueError, match=f"GroupLasso .*{came}.*preset='discovery'"):
        make_trainer(tmp_path, 1, [GroupLasso()]).fit(Plain(**options), loader())


@pytest.mark.parametrize("candidates", [None, torch.tensor([[0, 0, 2], [1, 0, 1]])])
def test_whether_two_nodes_have_a_weight(candidates):
    net = LatentCorrelationGCN(
        2, 2, 3, weights="signed", dynamic=False, heads=2, k_neighbors=None, candidates=candidates
    )
    weights = net.learner.correlation.detach().zero_()
    assert not has_edges(net)
    # Of target 1: itself or, of candidates 0 and 2, the first; in the first rows of those, what stands for nobody.
    sources = range(3) if candidates is None else net.learner.candidates[1].tolist()
    for column, source in enumerate(sources):
        weights[1, column, 1] = -0.1
        assert has_edges(net) == (source not in (-1, 1))
        weights.zero_()
    if candidates is not None:
        empty = (net.learner.candidates == -1).nonzero()
        assert len(empty)
        weights[empty[:, 0], empty[:, 1]] = 1.0
        assert not has_edges(net)
    assert has_edges(LatentCorrelationGCN(2, 2, 3))


def test_other_refusals(tmp_path):
    class Other(Plain):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(2, 2)

    class Frozen(Plain):
        def configure_optimizers(self):
            return torch.optim.SGD(self.net.mlp.parameters(), lr=0.1)

    with pytest.raises(ValueError, match="got Other without a latent graph"):
        make_trainer(tmp_path, 1, [GroupLasso()]).fit(Other(), loader())
    with pytest.raises(ValueError, match=r"no optimizer trains .*got 1 optimizers without them"):
        make_trainer(tmp_path, 1, [GroupLasso()]).fit(Frozen(), loader())
    for data in (DataLoader(Endless(), 4), [X]):
        with pytest.raises(ValueError, match=r"'strength' must be given .*no DataLoader with a"):
            make_trainer(tmp_path, 1, [GroupLasso()]).fit(Plain(), data)
    with pytest.raises(ValueError, match=r"'strength' must be .*got -1"):
        GroupLasso(-1.0)
    with pytest.raises(TypeError, match="'strength' must be"):
        GroupLasso("strong")
    with pytest.raises(ValueError, match=r"'dense_epochs' must be .*got -1"):
        GroupLasso(dense_epochs=-1)
