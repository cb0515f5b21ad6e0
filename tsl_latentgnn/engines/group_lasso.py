"""Sparse signed graphs: the heads of an edge shrink together, to exactly zero."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from .._checks import check_float, check_int
from ..nn import GraphLearner

#: Standard errors of the mean gradient of all windows that an edge must withstand; windows that count, at most; and
#: the largest strength by these, for all of Adam's steps agree where there are few.
ERRORS, MAX_WINDOWS, MAX_STRENGTH = 2.0, 1400, 0.5


class GroupLasso(Callback):
    r"""Shrinks the signed weights of a static graph after each step of an optimizer, all heads of an edge together.

    .. math::
        \mathbf{c}_{ij} \leftarrow \mathbf{c}_{ij} \max\Big(0,\, 1 -
        \frac{\eta \lambda \sqrt{H}}{\lVert \mathbf{c}_{ij} \rVert_2}\Big),

    which is the proximal step of the group lasso (`Yuan and Lin, 2006
    <https://doi.org/10.1111/j.1467-9868.2005.00532.x>`_), as in `"Neural Granger Causality"
    <https://arxiv.org/abs/1802.05842>`_ (Tank et al., 2021): :math:`\mathbf{c}_{ij}` are the :math:`H` weights of an
    edge, :math:`\eta` the learning rate of the step, :math:`\lambda` the strength. An edge that the loss does not ask
    for becomes exactly zero, and may come back.

    A step of Adam is as long as the learning rate where the gradients of the batches agree, and shorter, by their mean
    over their spread, where they do not; the scale of the loss and the number of nodes have no part in it. So
    :math:`\lambda` is without unit: the agreement below which an edge goes. By chance, the gradients of an edge of no
    use agree by about :math:`\sqrt{B / T}` over :math:`T` windows in batches of :math:`B`, and the default is twice
    that,

    .. math::
        \lambda = \min\big(2 \sqrt{B / \min(T, 1400)},\, 0.5\big),

    for Adam and its kin, and any number of nodes. More windows than 1,400 do not make it smaller: they would tell ever
    weaker edges from none, which nobody wants to read. A larger one gives fewer edges, each of them weaker.

    Early in a training the gradients of all edges are noise, for what a message says is not learned yet. Where the own
    past of a node says nearly all, the penalty can put out edges then that would be worth something later, and they do
    not come back. So give it some ``dense_epochs``, about 30 % of all, and keep the weights of no epoch before the last
    of them: there every pair is an edge.

    It has no state of its own, so that a training that goes on does as one that was never ended; where gradients are
    accumulated it follows the steps of the optimizer, not the batches. Every process of a distributed training does
    the same.

    .. code-block:: python

        model = LatentGNNModel(..., preset="discovery")
        trainer = Trainer(max_epochs=20, callbacks=[GroupLasso(dense_epochs=6)])

    Args:
        strength (float, optional): Strength :math:`\lambda`. (default: by the data, as above)
        dense_epochs (int): Epochs before the first one that shrinks. (default: ``0``)

    Raises:
        TypeError: If ``strength`` is not a number, or ``dense_epochs`` no integer.
        ValueError: If one is negative or, when the training starts, there are no static signed weights, no optimizer
            trains them, or the data have no length to take a strength from.
    """

    def __init__(self, strength: float | None = None, dense_epochs: int = 0) -> None:
        self.strength = None if strength is None else check_float("strength", strength, 0.0)
        self.dense_epochs = check_int("dense_epochs", dense_epochs, 0)
        self._hooks: list[Any] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look for the weights before the training, not after it."""
        static_weights(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on, each step of an optimizer is followed by one of the penalty, after the dense epochs."""
        weights = static_weights(pl_module)
        strength = default_strength(trainer) if self.strength is None else self.strength

        def shrink_after(optimizer: Optimizer, *_: Any) -> None:
            if trainer.current_epoch < self.dense_epochs:
                return
            for group in optimizer.param_groups:
                for weight in group["params"]:
                    if id(weight) in weights:
                        shrink(weight, strength * float(group["lr"]))

        trained = {
            id(weight)
            for optimizer in trainer.optimizers
            for group in optimizer.param_groups
            for weight in group["params"]
        }
        if not trained & weights.keys():
            raise ValueError(
                "'callbacks' must not hold a GroupLasso where no optimizer trains the weights of the graph (got "
                f"{len(trainer.optimizers)} optimizers without them)."
            )
        self._hooks = [each.register_step_post_hook(shrink_after) for each in trainer.optimizers]

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the optimizers as they were made."""
        while self._hooks:
            self._hooks.pop().remove()


def default_strength(trainer: Trainer) -> float:
    """Strength by the windows of the data and of an optimizer step, whatever part of the data an epoch is.

    Raises:
        ValueError: If the data have no length.
    """
    loaders: list[Any] = tree_leaves(trainer.train_dataloader)
    try:
        windows, batches = max((len(loader.dataset), len(loader)) for loader in loaders)
    except (AttributeError, TypeError):
        raise ValueError(
            "'strength' must be given to a GroupLasso whose training data are no DataLoader with a length (got None)."
        ) from None
    # Of all processes: each has a part of the batches of the whole data.
    each_step = windows / batches * trainer.accumulate_grad_batches
    return min(ERRORS * (each_step / min(windows, MAX_WINDOWS)) ** 0.5, MAX_STRENGTH)


def can_shrink(model: Module) -> bool:
    """Whether all graphs of a model are static ones of signed weights."""
    learners = [module for module in model.modules() if isinstance(module, GraphLearner)]
    return bool(learners) and all(map(_is_static, learners))


def _is_static(learner: GraphLearner) -> bool:
    return learner.signed and learner.static == "full" and not learner.dynamic


def static_weights(model: Module) -> dict[int, Tensor]:
    """The static signed weights ``[N, C, H]`` of a model by their identity, each once.

    Raises:
        ValueError: If there are none, or what an edge weighs is not in them alone.
    """
    learners = [module for module in model.modules() if isinstance(module, GraphLearner)]
    unfit = [each for each in learners if not _is_static(each)]
    if unfit or not learners:
        came = f"{type(model).__name__} without a latent graph"
        if unfit:
            kind = "signed" if unfit[0].signed else "softmax"
            came = f"weights={kind!r}, static={unfit[0].static!r} and dynamic={unfit[0].dynamic}"
        raise ValueError(
            "'callbacks' must not hold a GroupLasso for a model without weights of its edges to shrink, which needs "
            f"weights='signed', static='full' and dynamic=False (got {came}); preset='discovery' has them."
        )
    return {id(each.correlation): each.correlation for each in learners}


def has_edges(model: Module) -> bool:
    """Whether two different nodes have a weight that is not zero; so has any model whose weights cannot shrink."""
    if not can_shrink(model):
        return True
    for learner in (module for module in model.modules() if isinstance(module, GraphLearner)):
        weighs = (learner.correlation != 0).any(-1)
        nodes = torch.arange(learner.num_nodes, device=weighs.device)
        sources = nodes if learner.candidates is None else learner.candidates
        if bool((weighs & (sources >= 0) & (sources != nodes[:, None])).any()):
            return True
    return False


@torch.no_grad()
def shrink(weight: Tensor, by: float) -> None:
    """Shrink the groups ``[*, H]`` of weights in place by ``by`` times the root of their number."""
    size = torch.linalg.vector_norm(weight, dim=-1, keepdim=True)
    left = 1 - by * weight.size(-1) ** 0.5 / size
    # A group of zeros gives 0 / 0 or -inf.
    weight.mul_(left.nan_to_num(0.0).clamp_min(0.0))
