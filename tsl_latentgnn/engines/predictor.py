"""tsl's Predictor with teacher forcing and the loss of a Gaussian likelihood."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import IO, Any

import numpy as np
import torch
from pytorch_lightning import Callback
from torch import Tensor
from torch.distributions import Normal

from .._checks import check_choice, check_float, check_int, runs_ahead
from .._tsl import Data, Predictor
from ..models import LatentGNNModel
from ..nn import HorizonReadout, LatentGraph
from .calibration import interval_factors, scaled_errors
from .callbacks import DataCard, DenseStart, check_dense_start
from .checkpoint import (
    check_model,
    lacking,
    model_differences,
    named_as,
    not_finite,
    read_checkpoint,
    refuse,
    shorten,
)
from .scaling import undo_scaler
from .training_data import check_scaling


class LatentGNNPredictor(Predictor):
    r"""A :class:`tsl.engines.Predictor` for :class:`~tsl_latentgnn.models.LatentGNNModel`.

    It adds to tsl's Predictor:

    - **Teacher forcing** from the batch's own target, in the scale that the model works in, during training only.
      After :math:`s` optimizer steps a decoding step is fed the target with probability :math:`\epsilon_s`, by one of
      the schedules of `"Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks"
      <https://arxiv.org/abs/1506.03099>`_ (Bengio et al., NeurIPS 2015), with :math:`\epsilon` the
      ``teacher_forcing_ratio`` and :math:`S` the ``teacher_forcing_steps``:

      .. math::
          \text{linear: } \epsilon \max(0, 1 - s / S), \qquad
          \text{exponential: } \epsilon \, e^{-s / S}, \qquad
          \text{sigmoid: } \epsilon \, \frac{S}{S + e^{s / S}}.

    - **A dense start**: ``dense_epochs`` adds the callback :class:`~tsl_latentgnn.engines.DenseStart` to the trainer,
      in the place of one that the trainer was given.
    - **The loss of a Gaussian likelihood**: for a model with ``likelihood="gaussian"`` the loss is the mean negative
      log-likelihood of the observed target; ``loss_fn`` is then not needed. The metrics are those of the mean.
    - **Calibration**: :meth:`calibrate` fits the width of the intervals to held-out readings after the training.
    - **Safe checkpoints**: :meth:`load_model` and :meth:`load_from_checkpoint` run nothing that a file may carry.
    - **Missing targets**: a target that is NaN counts as one that the mask leaves out, in loss and metrics.
    - **Quantiles at prediction**: with such a model, :meth:`predict_step` adds ``quantiles``
      ``[b horizon n f q]`` in the original range.

    Args:
        *args: Positional arguments of :class:`tsl.engines.Predictor`.
        teacher_forcing_ratio (float): Probability :math:`\epsilon` at the start of the training. (default: ``0.0``)
        teacher_forcing_decay (str, optional): ``"linear"``, ``"exponential"``, ``"sigmoid"``, or ``None`` for a
            constant ratio. (default: ``None``)
        teacher_forcing_steps (int): Time constant :math:`S` of the decay, in optimizer steps. (default: ``1000``)
        dense_epochs (int): Epochs that train dense attention before the top-:math:`k` graph. (default: ``0``)
        quantiles (sequence): Levels in :math:`(0, 1)` of the quantiles at prediction. (default: ``(0.05, 0.5, 0.95)``)
        **kwargs: Keyword arguments of :class:`tsl.engines.Predictor`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or the model cannot do what is asked for.
    """

    def __init__(
        self,
        *args: Any,
        teacher_forcing_ratio: float = 0.0,
        teacher_forcing_decay: str | None = None,
        teacher_forcing_steps: int = 1000,
        dense_epochs: int = 0,
        quantiles: Sequence[float] = (0.05, 0.5, 0.95),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        ratio = check_float("teacher_forcing_ratio", teacher_forcing_ratio, 0.0, 1.0)
        decay = check_choice("teacher_forcing_decay", teacher_forcing_decay, (None, *_DECAYS))
        self.teacher_forcing_ratio, self.teacher_forcing_decay = ratio, decay
        self.teacher_forcing_steps = check_int("teacher_forcing_steps", teacher_forcing_steps, 1)
        self.dense_epochs = check_int("dense_epochs", dense_epochs, 0)
        self._dense_start = DenseStart(self.dense_epochs)
        if isinstance(quantiles, str) or not isinstance(quantiles, Sequence):
            raise TypeError(
                f"'quantiles' must be a sequence of levels in (0, 1) (got {quantiles!r})."
            )
        self.quantiles = tuple(check_float("quantiles", level) for level in quantiles)
        if not self.quantiles or not all(0.0 < level < 1.0 for level in self.quantiles):
            raise ValueError(f"'quantiles' must be levels in (0, 1) (got {quantiles!r}).")
        if self.model is not None:
            self._check_likelihood()
            self._check_teacher_forcing()
            check_dense_start("dense_epochs", self.dense_epochs, self.model)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write how the model is made also where it was made outside, and in types that a checkpoint may hold."""
        super().on_save_checkpoint(checkpoint)
        hparams = checkpoint.get("hyper_parameters") or {}
        model = getattr(self.model, "_orig_mod", self.model)
        if hparams.get("model_class") is None and isinstance(model, LatentGNNModel):
            hparams = {**hparams, "model_class": type(model), "model_kwargs": model.arguments}
        kwargs = hparams.get("model_kwargs")
        if isinstance(kwargs, Mapping):
            plain = {name: _to_plain(value) for name, value in kwargs.items()}
            checkpoint["hyper_parameters"] = {**hparams, "model_kwargs": plain}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As PyTorch's, also from a compiled model into one that is not, and the other way."""
        return super().load_state_dict(named_as(state_dict, self), *args, **kwargs)

    def load_model(self, filename: str | os.PathLike[str]) -> None:
        """Load the weights of a checkpoint into the model; nothing that the file may carry is run.

        Args:
            filename (str): The checkpoint, of this model class with the same arguments; the one may be compiled
                (``torch.compile``) and the other not.

        Raises:
            ValueError: If the file is not a whole checkpoint, holds more than data, is that of another model (the
                message says what differs), or has weights that are NaN or Inf.
            OSError: If there is no such file, or it may not be read.
        """
        checkpoint = read_checkpoint(filename, "filename")
        path = os.fspath(filename)
        missing = lacking(checkpoint, {"hyper_parameters": dict, "state_dict": dict})
        if missing:
            raise ValueError(
                f"'filename' must be a checkpoint of a Predictor (got {path!r}, which lacks "
                f"{', '.join(missing)}). Take one that Lightning wrote while it was trained."
            )
        with refuse("filename", path, "which cannot be compared with this one: "):
            differences = model_differences(checkpoint, self)
        differences = differences or shorten(not_finite(checkpoint["state_dict"]))
        if differences:
            raise ValueError(
                f"'filename' must be a checkpoint of this model (got {path!r}, in which "
                f"{'; '.join(differences)}). Make the predictor with the arguments of its training."
            )
        self.load_state_dict(checkpoint["state_dict"])

    @classmethod
    def load_from_checkpoint(
        cls, checkpoint_path: str | os.PathLike[str] | IO[bytes], *args: Any, **kwargs: Any
    ) -> Any:
        """As Lightning's, with torch's ``weights_only`` safety, which Lightning turns off.

        A model that is given as ``model=`` takes the weights; without one it is made as the checkpoint says.

        Raises:
            ValueError: If the file is not a whole checkpoint, holds more than data, does not say how its model is made,
                or has weights that do not fit or are NaN or Inf.
            OSError: If there is no such file, or it may not be read.
        """
        checkpoint = read_checkpoint(checkpoint_path, "checkpoint_path")
        path = checkpoint_path if isinstance(checkpoint_path, IO) else os.fspath(checkpoint_path)
        if not {"model", "model_class", "model_kwargs"} & kwargs.keys():
            check_model(checkpoint, "checkpoint_path", path)
        elif kwargs.get("model") is not None and isinstance(checkpoint, dict):
            hparams = checkpoint.get("hyper_parameters") or {}
            rest = {k: v for k, v in hparams.items() if k not in ("model_class", "model_kwargs")}
            checkpoint = {**checkpoint, "hyper_parameters": rest}
        # What Lightning reads is what was let through, written anew.
        memory = BytesIO()
        torch.save(checkpoint, memory)
        memory.seek(0)
        with refuse("checkpoint_path", path, "which cannot be loaded: "):
            # Lightning imports and calls what a checkpoint names as its instantiator, unless the caller names another.
            return super().load_from_checkpoint(memory, *args, **{"_instantiator": None, **kwargs})

    def configure_callbacks(self) -> list[Callback]:
        """Add the dense start, where there is one; Lightning puts it in the place of the trainer's own."""
        own = self._dense_start
        added = self.dense_epochs == 0 or own in self.trainer.callbacks  # by fit, before a test
        return [*super().configure_callbacks(), *([] if added else [own])]

    def on_fit_start(self) -> None:
        """Look at the data before it is trained on; a :class:`~tsl_latentgnn.engines.DataCard` does so itself."""
        super().on_fit_start()
        if not any(isinstance(each, DataCard) for each in self.trainer.callbacks):
            check_scaling(self.trainer.datamodule, self.model)

    @property
    def current_teacher_forcing_ratio(self) -> float:
        """Probability of teacher forcing at the current optimizer step."""
        if self.teacher_forcing_decay is None:
            return self.teacher_forcing_ratio
        decay = _DECAYS[self.teacher_forcing_decay](self.global_step, self.teacher_forcing_steps)
        return self.teacher_forcing_ratio * decay

    @property
    def is_gaussian(self) -> bool:
        """Whether the model has a Gaussian likelihood."""
        return getattr(self.model, "likelihood", None) == "gaussian"

    def _require_gaussian(self) -> None:
        if not self.is_gaussian:
            raise ValueError("'model' must have likelihood='gaussian' for a forecast distribution.")

    def predict_batch(self, batch: Data, *args: Any, **kwargs: Any) -> Any:
        """As in tsl's Predictor, with teacher forcing while the module is in training mode."""
        return super().predict_batch(batch, *args, **{**self._teacher_forcing(batch), **kwargs})

    def predict_distribution(self, batch: Data, postprocess: bool = True) -> Normal:
        """Forecast distribution of a batch, over ``[b horizon n f]``.

        Args:
            batch (Data): The batch.
            postprocess (bool): If ``True``, in the original range; otherwise in the scale of the model.
                (default: ``True``)

        Raises:
            ValueError: If the model has no Gaussian likelihood.
        """
        self._require_gaussian()
        inputs, _, _, transform = self._unpack_batch(batch)
        inputs = self._filter_forward_kwargs({**inputs, **self._teacher_forcing(batch)})
        normal = self.model.forecast(**inputs).distribution
        scaler = transform.get("y") if postprocess else None
        return normal if scaler is None else undo_scaler(normal, scaler)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Data], level: float = 0.9) -> Tensor:
        r"""Stretch the scales so that central intervals hold the share ``level`` of held-out readings.

        They are stretched by :func:`~tsl_latentgnn.engines.calibration.interval_factors`. The factor is kept in the
        model, and so in its checkpoints, and replaces that of an earlier call; it is at least the precision of the
        numbers. Means do not change.

        Args:
            batches (iterable): Batches that the model was not trained on, such as a validation dataloader.
            level (float): Share of the readings that the intervals are to hold, in :math:`(0, 1)`. (default: ``0.9``)

        Returns:
            torch.Tensor: The factors ``[horizon, f]``.

        Raises:
            ValueError: If the model has no Gaussian likelihood, ``level`` is not in :math:`(0, 1)`, or a step of the
                horizon has too few readings for it.
        """
        self._require_gaussian()
        training = self.training
        self.eval()
        try:
            errors = (self._scaled_errors(batch.to(self.device)) for batch in batches)
            stretch = interval_factors(errors, level)
        finally:
            self.train(training)
        factor = self.model.scale_factor.mul_(stretch)
        factor.clamp_(min=torch.finfo(factor.dtype).eps)  # without any error, a scale of 0 is none
        return factor.clone()

    def _scaled_errors(self, batch: Data) -> Tensor:
        _, _, mask, _ = self._unpack_batch(batch)
        return scaled_errors(self.predict_distribution(batch), batch.y, mask)

    def latent_graph(self, batch: Data, *, layer: int = -1) -> LatentGraph:
        """Graphs of a latent layer (default: the last) for a batch, see the model's ``latent_graph``."""
        inputs = self._filter_forward_kwargs(dict(batch.input.items()))
        return self.model.latent_graph(**inputs, layer=layer)

    def training_step(self, batch: Data, batch_idx: int) -> Tensor:
        """Compute and log the training loss and metrics."""
        if self.teacher_forcing_ratio > 0:
            ratio = self.current_teacher_forcing_ratio
            self.log("teacher_forcing_ratio", ratio, batch_size=batch.batch_size)
        _leave_out_missing(batch)
        if self.is_gaussian:
            return self._likelihood_step(batch, "train", scaled=self.scale_target)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Data, batch_idx: int) -> Tensor:
        """Compute and log the validation loss and metrics."""
        _leave_out_missing(batch)
        if self.is_gaussian:
            return self._likelihood_step(batch, "val", scaled=self.scale_target)
        return super().validation_step(batch, batch_idx)

    def test_step(self, batch: Data, batch_idx: int) -> Tensor:
        """Compute and log the test loss and metrics, in the original range."""
        _leave_out_missing(batch)
        if self.is_gaussian:
            return self._likelihood_step(batch, "test", scaled=False)
        return super().test_step(batch, batch_idx)

    def compute_metrics(
        self, batch: Data, preprocess: bool = False, postprocess: bool = True
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Test metrics of a batch, and its forecasts."""
        _leave_out_missing(batch)
        return super().compute_metrics(batch, preprocess, postprocess)

    def predict_step(self, batch: Data, batch_idx: int, dataloader_idx: int | None = None) -> dict:
        """Forecasts ``y_hat`` with the targets and mask of the batch; with a Gaussian likelihood, ``quantiles`` too."""
        if not self.is_gaussian:
            return super().predict_step(batch, batch_idx, dataloader_idx)
        _, targets, mask, _ = self._unpack_batch(batch)
        normal = self.predict_distribution(batch)
        output = dict(**targets, y_hat=normal.loc)
        levels = normal.loc.new_tensor(self.quantiles)
        each = Normal(normal.loc.unsqueeze(-1), normal.scale.unsqueeze(-1))
        output["quantiles"] = each.icdf(levels)
        if mask is not None:
            output["mask"] = mask
        return output

    def _teacher_forcing(self, batch: Data) -> dict[str, Any]:
        """Arguments of the model's forward for teacher forcing, while training."""
        if not self.training or self.teacher_forcing_ratio == 0:
            return {}
        self._check_teacher_forcing()
        _, targets, mask, transform = self._unpack_batch(batch)
        y = targets["y"]
        if transform.get("y") is not None:
            y = transform["y"].transform(y)
        if mask is not None:
            y = y.masked_fill(~mask.bool(), math.nan)
        return {"targets": y, "teacher_forcing_ratio": self.current_teacher_forcing_ratio}

    def _check_likelihood(self) -> None:
        likelihood = getattr(self.model, "likelihood", None)
        if likelihood not in (None, "gaussian"):
            raise ValueError(
                f"'model' must have likelihood=None or 'gaussian' (got {likelihood!r}, which tsl_latentgnn.Forecaster "
                "trains)."
            )

    def _check_teacher_forcing(self) -> None:
        if self.teacher_forcing_ratio == 0:
            return
        taken = set(self._model_fwd_signature["signature"])
        if not {"targets", "teacher_forcing_ratio"} <= taken:
            raise ValueError(
                "'teacher_forcing_ratio' must be 0 for a model whose forward takes no 'targets' "
                f"(got {self.teacher_forcing_ratio} with {type(self.model).__name__})."
            )
        if any(isinstance(module, HorizonReadout) for module in self.model.modules()):
            raise ValueError(
                "'teacher_forcing_ratio' must be 0 with decoder='direct', which decodes all steps at once "
                f"(got {self.teacher_forcing_ratio})."
            )

    def _likelihood_step(self, batch: Data, split: str, scaled: bool) -> Tensor:
        """Negative log-likelihood of the observed target, in the scale of the model or the original range."""
        _, _, mask, transform = self._unpack_batch(batch)
        y = y_loss = batch.y
        normal = self.predict_distribution(batch, postprocess=not scaled)
        y_hat = normal.mean.detach()
        scaler = transform.get("y")
        if scaled and scaler is not None:
            y_loss = scaler.transform(y)
            y_hat = scaler.inverse_transform(y_hat)
        loss, metrics = masked_nll(normal, y_loss, mask), getattr(self, f"{split}_metrics")
        metrics.update(y_hat, y, mask)
        self.log_metrics(metrics, batch_size=batch.batch_size)
        self.log_loss(split, loss, batch_size=batch.batch_size)
        return loss


def _to_plain(value: Any) -> Any:
    """An argument in a type that a checkpoint may hold."""
    if isinstance(value, np.generic):
        return value.item()
    if "omegaconf" in sys.modules:
        from omegaconf import OmegaConf

        if OmegaConf.is_config(value):
            return OmegaConf.to_container(value, resolve=True)
    return value


def _leave_out_missing(batch: Data) -> None:
    """Mask the targets of a batch that are NaN, and put 0 for all that are masked.

    tsl's losses leave out what is masked, but the gradient of ``MaskedMSE`` is NaN where it is NaN. A batch without a
    mask gets one on a GPU in any case: to ask whether it is needed would stop the device at every step.
    """
    mask = batch.get("mask")
    if mask is None and not runs_ahead(batch.y) and not batch.y.isnan().any():
        return
    mask = _present(batch.y, mask)
    batch.y, batch.mask = batch.y.masked_fill(~mask, 0.0), mask


def _present(y: Tensor, mask: Tensor | None) -> Tensor:
    """Which readings of ``y`` are there: those that are numbers, and that the mask, if any, marks as there."""
    there = ~y.isnan()
    return there if mask is None else there & mask.bool().expand_as(y)


def masked_nll(normal: Normal, y: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Mean negative log-likelihood of the readings of ``y`` that are there: not NaN, nor masked; 0 if none is."""
    mask = _present(y, mask)
    # What is missing is replaced before the likelihood, so that no gradient sees it.
    log_prob = normal.log_prob(torch.where(mask, y, normal.loc.detach()))
    return -(log_prob * mask).sum() / mask.sum().clamp_min(1)


def _sigmoid_decay(step: int, steps: int) -> float:
    # S / (S + exp(s / S)), written so that it does not overflow late in a long training.
    return 1.0 / (1.0 + math.exp(min(step / steps - math.log(steps), 700.0)))


_DECAYS = {
    "linear": lambda step, steps: max(0.0, 1.0 - step / steps),
    "exponential": lambda step, steps: math.exp(-step / steps),
    "sigmoid": _sigmoid_decay,
}
