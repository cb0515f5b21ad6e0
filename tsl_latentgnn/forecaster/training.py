"""The training of a network on windows of a series."""

from __future__ import annotations

import copy
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from .._ending import CTRL_C, Ended
from ..engines.callbacks import DenseStart
from ..engines.group_lasso import GroupLasso, can_shrink, has_edges
from ..models import LatentForecaster
from ..nn.forecast import Forecast
from .averaging import WeightAverage
from .batches import Batch, Windows
from .large import batch_size, sensors_at_once, spread_out
from .settings import Settings

#: How much more than usual a sensor may count, and how much less.
MAX_WEIGHT = 4.0
#: Largest norm of a gradient.
CLIP = 5.0
#: Windows that are validated on, at most, and readings at one time in them: of more, every other one says the same.
MAX_VALIDATION, VALIDATION_READINGS = 2048, 2**21
LAST = "last.ckpt"


def masked_loss(forecast: Forecast, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the losses of the readings of ``y`` that are there, and that of their weights ``[n c]``."""
    there = y.isfinite()
    # What is missing is replaced before the loss, so that no gradient sees it.
    loss = forecast.loss(torch.where(there, y, forecast.mean.detach()))
    weights = weight * there
    return (loss * weights).sum(), weights.sum()


def loss_weights(scale: Tensor) -> Tensor:
    r"""Weights of sensors and channels ``[n c]`` by the scale of their readings ``[n c]``.

    .. math::
        w_{ic} = \operatorname{clip}\big(s_{ic} / \bar{s}_c,\, 1 / W,\, W\big), \qquad
        \bar{s}_c = \text{the geometric mean of } s_{ic} \text{ over the sensors}

    with :math:`W` = :data:`MAX_WEIGHT`: a reading counts as its error does in the unit of the readings, as long as
    sensors are alike, and none is drowned out where they are not.
    """
    typical = scale.log().mean(0).exp()
    return (scale / typical).clamp(1 / MAX_WEIGHT, MAX_WEIGHT)


class Training(LightningModule):
    """The network as Lightning trains it, with Adam and one cycle of the learning rate.

    Args:
        network: What is trained.
        settings: How.
        seed: Of dropout, and of the order of the windows.
        order: What draws that order.
        weight: Weight of each sensor and channel in the loss ``[n c]``.
    """

    weight: Tensor

    def __init__(
        self,
        network: LatentForecaster,
        settings: Settings,
        seed: int,
        order: torch.Generator,
        weight: Tensor,
    ) -> None:
        super().__init__()
        self.network, self.settings, self.seed, self.order = network, settings, seed, order
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, batch: Batch) -> Forecast:
        """Forecast a batch, without the graphs, which nobody looks at here."""
        size = self.settings.sensors_at_once or sensors_at_once(batch.inputs["x"])
        inputs: dict[str, Any] = batch.inputs
        return self.network.forecast(**inputs, with_graphs=False, nodes_at_once=size)

    def on_train_epoch_start(self) -> None:
        """Order the windows by a seed of the epoch's own; see :meth:`training_step`."""
        self.order.manual_seed(1_000_003 * self.seed + self.current_epoch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch, with dropout by a seed of the step's own.

        A training that goes on thus does as one that was never ended.
        """
        torch.manual_seed(1_000_003 * self.seed + self.global_step)
        loss, weight = masked_loss(self(batch), batch.y, self.weight)
        return loss / weight.clamp_min(torch.finfo(weight.dtype).tiny)

    def on_validation_epoch_start(self) -> None:
        """Begin to add up."""
        self._total = torch.zeros(2, dtype=torch.float, device=self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the loss of a batch."""
        self._total += torch.stack(masked_loss(self(batch), batch.y, self.weight))

    def on_validation_epoch_end(self) -> None:
        """Log the mean loss."""
        self.log("val_loss", self._total[0] / self._total[1], prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Adam, and one cycle over the whole training."""
        chosen = self.settings
        optimizer = torch.optim.Adam(self.network.parameters(), lr=chosen.lr)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, chosen.lr, total_steps=chosen.epochs * chosen.epoch_steps + 1, pct_start=0.2
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


class KeepBest(Callback):
    """Keeps the weights of the best epoch in memory, and ends the training when it has not improved for a while.

    ``interrupted`` says whether Ctrl-C ended it before.

    Args:
        patience: Epochs without improvement after which the training ends.
        first: Epoch before which none is kept once there is a later one, and none counts for the patience.
            (default: ``0``)
    """

    def __init__(self, patience: int, first: int = 0) -> None:
        self.patience, self.first = patience, first
        self.best, self.epoch, self.loss = {}, -1, float("inf")  # type: dict[str, Tensor], int, float
        self.interrupted = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do not go on where the patience was over already."""
        if self._is_over(trainer.current_epoch - 1):
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look whether this epoch is the best one."""
        if trainer.sanity_checking:
            return
        loss = float(trainer.callback_metrics["val_loss"])
        is_first = self.epoch < self.first <= trainer.current_epoch
        if loss < self.loss or (is_first and math.isfinite(loss)):
            weights = pl_module.network.state_dict()  # type: ignore[union-attr]
            self.best = {name: value.detach().cpu().clone() for name, value in weights.items()}
            self.epoch, self.loss = trainer.current_epoch, loss
        elif self._is_over(trainer.current_epoch):
            trainer.should_stop = True

    def _is_over(self, epoch: int) -> bool:
        # Before any epoch, one less than the first.
        return epoch - max(self.epoch, self.first - 1) >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"best": self.best, "epoch": self.epoch, "loss": self.loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.best, self.epoch, self.loss = (state_dict[n] for n in ("best", "epoch", "loss"))


def train(
    network: LatentForecaster,
    training: Windows,
    validation: Windows,
    settings: Settings,
    weight: Tensor,
    *,
    seed: int,
    folder: str | os.PathLike[str] | None = None,
    trainer_kwargs: Mapping[str, Any] | None = None,
) -> KeepBest:
    """Train ``network`` until it no longer improves on ``validation``, and leave it with its best weights.

    Static signed weights are shrunk by a :class:`~tsl_latentgnn.engines.GroupLasso` after the dense epochs, none of
    which is kept. Of a network without them each epoch is judged, and kept, by the moving average of its weights, see
    :class:`~.averaging.WeightAverage`.

    Ctrl-C ends the training; the best weights so far are kept.

    Args:
        network: What is trained, in place.
        training: Windows to learn from, in a new order in every epoch.
        validation: Windows that choose the epoch.
        settings: How.
        weight: Weight of each sensor and channel in the loss ``[n c]``, see :func:`loss_weights`.
        seed: Of the order of the windows.
        folder: Where every epoch is kept, so that a training that was ended goes on from there. (default: nowhere)
        trainer_kwargs: Further arguments of Lightning's ``Trainer``. (default: none)

    Raises:
        FloatingPointError: If no epoch had a finite validation loss.
    """
    shrinks = can_shrink(network)
    best = KeepBest(settings.patience, settings.dense_epochs if shrinks else 0)
    callbacks: list[Callback] = [best]
    if settings.dense_epochs > 0:
        callbacks.append(DenseStart(settings.dense_epochs))
    if shrinks:
        callbacks.append(GroupLasso(dense_epochs=settings.dense_epochs))
    else:  # an average of weights that were shrunk to 0 now and then is not 0
        callbacks.append(WeightAverage())
    last = None
    if folder is not None:
        callbacks.append(
            ModelCheckpoint(
                Path(folder),
                filename="last",
                enable_version_counter=False,
                save_on_train_epoch_end=True,  # a whole epoch, with its validation
            )
        )
        last = Path(folder, LAST) if Path(folder, LAST).is_file() else None
    given = dict(trainer_kwargs or {})
    options = {
        "max_epochs": settings.epochs,
        "limit_train_batches": settings.epoch_steps,
        "num_sanity_val_steps": 0,
        "gradient_clip_val": CLIP,
        "logger": False,
        "enable_checkpointing": folder is not None,
        "enable_model_summary": False,
        **given,
        "callbacks": [*callbacks, *given.get("callbacks", [])],
    }
    readings = weight.numel()
    most = min(MAX_VALIDATION, max(1, VALIDATION_READINGS // readings))
    watched = Windows(
        validation.series,
        spread_out(validation.last.numpy(), most),
        validation.window,
        validation.horizon,
    )
    order = torch.Generator()
    with quiet():
        trainer = Trainer(**options)
        try:
            trainer.fit(
                Training(network, settings, seed, order, weight),
                training.loader(settings.batch_size, order),
                watched.loader(batch_size(4 * settings.batch_size, settings.window * readings)),
                ckpt_path=None if last is None else os.fspath(last),
            )
        except (KeyboardInterrupt, SystemExit, Ended) as error:  # Lightning exits after Ctrl-C
            # What SIGTERM asks for is no training that is good enough, but an end.
            if trainer.received_sigterm or (isinstance(error, Ended) and error.status != CTRL_C):
                raise
            if not best.best:
                raise KeyboardInterrupt from None
            best.interrupted = True
    if not best.best:
        raise FloatingPointError(
            "'readings' must give a finite validation loss (got none in any epoch). "
            "Take a smaller lr, or look at the largest readings."
        )
    network.load_state_dict(copy.deepcopy(best.best))
    network.cpu().eval()
    return best


class Choice(NamedTuple):
    """A network that is to be tried.

    Args:
        shape: What tells it from the others.
        options: All arguments of the network.
        settings: Of its training.
    """

    shape: Mapping[str, Any]
    options: Mapping[str, Any]
    settings: Settings


class Networks(NamedTuple):
    """Networks that were trained.

    Args:
        networks: Those that are kept.
        best_epochs: Best epoch of each.
        choices: What was to be tried, and was, in this order.
        chosen: Place in them of the one that is kept.
        losses: Validation loss of each choice; NaN where it was not finite, or the training was ended before.
    """

    networks: list[LatentForecaster]
    best_epochs: list[int]
    choices: list[Choice]
    chosen: int
    losses: list[float]


def train_networks(
    choices: Sequence[Choice],
    number: int,
    training: Windows,
    validation: Windows,
    weight: Tensor,
    *,
    again: Callable[[Settings], Settings] | None = None,
    seed: int,
    folder: str | os.PathLike[str] | None,
    trainer_kwargs: Mapping[str, Any],
    say: Callable[[str], None],
) -> Networks:
    """Train a network of each choice, keep that of the lowest validation loss, and train more that differ from it in
    their seeds.

    Ctrl-C leaves those that are done, or the first one as it is.

    Args:
        choices: What is to be tried.
        number: How many networks are kept.
        training: As for :func:`train`, as are the next two.
        validation: See there.
        weight: See there.
        again: The settings with which the best choice is tried once more if all its edges were shrunk to zero, by
            those that it had. (default: it is not)
        seed: Of each choice; each further network has the next.
        folder: As for :func:`train`; several networks have a folder each in it.
        trainer_kwargs: As for :func:`train`. Callbacks of a network know nothing of the one before.
        say: Is told which of several begins.

    Raises:
        FloatingPointError: If no choice, or a further network, has a finite validation loss.
    """
    total, begun = len(choices) + number - 1, 0

    def train_one(choice: Choice, own_seed: int) -> tuple[LatentForecaster, KeepBest]:
        nonlocal begun
        own, given = folder, trainer_kwargs
        begun += 1
        if total > 1:
            say(f"Training network {begun} of {total}.")
            own = None if folder is None else Path(folder, f"network{begun}")
            given = copy.deepcopy(trainer_kwargs)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(own_seed)
            network = LatentForecaster(**choice.options)
            best = train(
                network, training, validation, choice.settings, weight,
                seed=own_seed, folder=own, trainer_kwargs=given,
            )  # fmt: skip
        return network, best

    tried = list(choices)
    found: dict[int, tuple[LatentForecaster, KeepBest]] = {}

    def lowest() -> int:
        return min(found, key=lambda place: found[place][1].loss)

    def places() -> Iterator[int]:
        nonlocal total
        yield from range(len(choices))
        if again is not None and not has_edges(found[lowest()][0]):
            say("No edge is left in the best network: once more, with a dense start.")
            best = tried[lowest()]
            tried.append(best._replace(settings=again(best.settings)))
            total += 1
            yield len(choices)

    ended = False
    for place in places():
        try:
            network, best = train_one(tried[place], seed)
        except FloatingPointError:
            if not found and place == len(choices) - 1:
                raise
            continue
        except KeyboardInterrupt:
            if not found:
                raise
            ended = True
            break
        ended = best.interrupted
        if not (ended and found):  # half trained, it is no match for those that are done
            found[place] = network, best
        if ended:
            break
    chosen = lowest()
    losses = [found[place][1].loss if place in found else math.nan for place in range(len(tried))]
    kept = [found[chosen]]
    for further in range(1, number if not ended else 1):
        try:
            network, best = train_one(tried[chosen], seed + further)
        except KeyboardInterrupt:
            break
        if best.interrupted:
            break  # half trained, it would make the mean worse
        kept.append((network, best))
    networks, best_of_each = zip(*kept, strict=True)
    epochs = [best.epoch for best in best_of_each]
    return Networks(list(networks), epochs, tried, chosen, losses)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's notes on its own use from those who do not use it."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="(pytorch_)?lightning")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
