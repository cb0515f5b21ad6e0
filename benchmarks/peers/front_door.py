"""The front door of the package, as a user has it: a table in, forecasts with quantiles out."""

from __future__ import annotations

from typing import Any

from tsl_latentgnn import Forecaster

import numpy as np
import pandas as pd
import torch
from tsl.data import WINDOW

from benchmarks.peers.peer import QUANTILES, Peer, Series, by_row
from benchmarks.report.kept import LEVELS


class ForecasterPeer(Peer):
    """:class:`tsl_latentgnn.Forecaster`, which sees a table of the training and the validation part.

    The validation windows choose its epoch and its widths. Its profile stays that of the training part, as the others'
    does, though a user has it of all readings; without ``dataset.profile`` it has none. What it chooses by itself, such
    as the scaling and the batches, does not follow the configuration, and neither does the cap in minutes. Its seed is
    that of torch's generator.
    """

    @classmethod
    def prepare(cls, datamodule: Any, **hparams: Any) -> None:
        """Add the forecasts and their quantiles after each row of the windows that are scored.

        Args:
            datamodule: Windows of tsl, set up.
            **hparams: Arguments of the forecaster.

        Raises:
            ValueError: If the windows have no clock, or do not follow each other row by row.
        """
        windows, series = datamodule.torch_dataset, Series.of(datamodule)
        if series.index is None or windows.stride != 1:
            raise ValueError(
                "'model' must not be forecaster for data without a clock or with a stride other than 1 (got "
                f"stride={windows.stride}, {'no clock' if series.index is None else 'a clock'})."
            )
        names = [str(sensor) for sensor in range(series.seen.shape[1])]
        readings = pd.DataFrame(cls._readings(windows), series.index, names)
        past = None
        if series.lagged is not None:
            columns = {
                f"past{place}": series.lagged[..., place].ravel()
                for place in range(series.lagged.shape[-1])
            }
            keys = {
                "unique_id": np.tile(names, len(readings)),
                "ds": series.index.repeat(len(names)),
            }
            past = pd.DataFrame({**keys, **columns})

        def covariates(rows: slice) -> pd.DataFrame | None:
            each = len(names)
            return None if past is None else past[rows.start * each : rows.stop * each]

        last = windows.indices.numpy() + series.window - 1
        watched = last[np.asarray(datamodule.valset.indices)]
        ends = int(watched[-1]) + 1 + series.horizon
        fitted = slice(0, ends)
        forecaster = Forecaster(
            series.horizon,
            window=series.window,
            val_size=(ends - 1 - int(watched[0])) / ends,
            quantiles=LEVELS,
            profile=series.profile is not None,
            seed=torch.initial_seed() % 2**31,  # what Lightning may be given
            verbose=False,
            **hparams,
        ).fit(readings[fitted], past=covariates(fitted))
        ends = int(datamodule.train_slice[-1]) + 1
        forecaster.model_ = forecaster.model_.with_profile_of(
            readings.to_numpy(np.float32)[:ends, :, None], series.index[:ends]
        )
        asked = slice(int(series.scored.min()) - series.window + 1, len(readings))
        made = forecaster.predict(
            readings[asked], past=covariates(asked), step=1, quantiles=LEVELS
        ).drop(columns=["sensor", "time", "issued_at"])
        values = made.to_numpy(np.float32)  # forecast, then its quantiles
        values = values.reshape(-1, series.horizon, len(names), values.shape[1])
        values = values[series.scored - int(series.scored.min())]
        for name, found in (("forecasts", values[..., 0]), (QUANTILES, values[..., 1:])):
            windows.add_covariate(
                name,
                by_row(datamodule, series.scored, found),
                "t n f",
                synch_mode=WINDOW,
                add_to_input_map=name == "forecasts",
            )

    @staticmethod
    def _readings(windows: Any) -> np.ndarray:
        """Readings as the models are fed them, NaN where one is missing ``[t n]``."""
        name = "readings" if "readings" in windows.covariates else None
        values = windows.target if name is None else windows.covariates[name]
        there = windows.get_mask(dtype=bool) if name is None else windows.covariates["found"].bool()
        return values.masked_fill(~there, torch.nan).flatten(1).numpy()
