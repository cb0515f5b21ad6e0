"""A table in, forecasts and a graph out."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from .._checks import check_bool, check_choice, check_float, check_int
from ..models import PRESETS
from ..models.latent_forecaster import LIKELIHOODS
from ..profile import Clock, Profile
from .adaptive import forecast_adaptively
from .backtest import Backtest, rolling_origins, score
from .baselines import Baseline, baselines
from .batches import Series, Windows
from .conformal import Conformal, check_levels
from .covariates import Known, read_static, supported_units
from .ensemble import as_one
from .large import judged
from .panel import Panel, read_panel
from .prediction import as_tables, check_seen, own_names, predict_table
from .recipe import Recipe, Scale, duration
from .saving import load_folder, save_folder
from .settings import (
    Settings,
    choose_settings,
    default_window,
    is_unlike,
    shapes_to_try,
    validation_share,
    with_dense_epochs,
)
from .streamed import StreamedForecaster
from .trained import Trained, levels_of

if TYPE_CHECKING:
    from .checkpoint_forecaster import CheckpointForecaster

#: Quantiles of a forecast, where no others are asked for.
LEVELS = (0.05, 0.5, 0.95)
#: Windows of a training, at least.
MIN_WINDOWS = 8
#: Arguments that follow from the data where they are not given.
SETTINGS = (
    "batch_size",
    "epochs",
    "dense_epochs",
    "patience",
    "lr",
    "k_neighbors",
    "sensors_at_once",
)


class Forecaster(BaseEstimator):
    r"""Forecasts many related series over a graph that it learns.

    .. code-block:: python

        forecaster = Forecaster(horizon=12).fit(readings)
        forecasts = forecaster.predict(readings.tail(100))
        scores = forecaster.backtest(later_readings)
        edges = forecaster.graph()
        forecaster.save("model")

    The network is :class:`~tsl_latentgnn.models.LatentForecaster`. Beside the readings it sees the calendar, and the
    *profile* of each sensor, what it usually reads at that time, as far as the readings support them. What is not
    given follows from the data: see :attr:`settings_` after the training.

    Args:
        horizon (int): Steps to forecast. (default: ``12``)
        window (int, optional): Steps that a forecast sees. (default: a day of hourly readings, and at least 12 steps
            and the horizon)
        freq (str, optional): Step of the clock, as pandas writes it. (default: the most usual one of the readings)
        likelihood (str, optional): ``"quantile"``, ``"gaussian"``, ``"student_t"``, or ``None`` for the absolute error
            alone. All give quantiles, with widths that held on the validation part.
            (default: ``"quantile"``)
        quantiles (sequence): Levels of the quantiles of a forecast. (default: ``(0.05, 0.5, 0.95)``)
        val_size (float, optional): Share of the rows, the last ones, that choose the epoch and the widths, and that
            the edges are tested on. (default: ``0.125``, with ``preset="discovery"`` ``0.25``)
        missing (float, str or sequence, optional): What stands for a missing reading beside an empty cell.
            (default: ``None``)
        profile (bool): Whether the usual reading is an input. (default: ``True``)
        holidays (str, optional): Country whose holidays are an input, such as ``"DE"``; needs the package
            ``holidays``. (default: ``None``)
        new_sensors (bool): Whether sensors that were not trained on can be forecast, from their static features: the
            network then has no parameters of single sensors. (default: ``False``)
        scaling (str, optional): ``"sensor"``, a scale for each sensor, or ``"global"``. (default: by the readings)
        batch_size (int, optional): Windows of an optimizer step. (default: by the readings, as for the next ones)
        epochs (int, optional): Epochs at most.
        dense_epochs (int, optional): The first of them, in which all pairs of sensors learn a weight; only then are
            sources chosen, or weights shrunk to zero. (default: one, of more than 2,000 sensors or where all
            are sources none; for ``"discovery"`` see ``preset``)
        patience (int, optional): Epochs without improvement after which the training ends.
        lr (float, optional): Largest learning rate.
        k_neighbors (int, optional): Sources of each sensor, itself included.
        sensors_at_once (int, optional): Sensors that go through the recurrence and the readout together in a training.
            The gradient is the same; fewer take less memory, see :meth:`LatentForecaster.forecast
            <tsl_latentgnn.models.LatentForecaster.forecast>`. (default: all; of many readings on a CPU as many as its
            caches hold)
        preset (str): Of the network, a name in :data:`~tsl_latentgnn.models.PRESETS`: ``"state"`` for forecasting,
            ``"discovery"`` for a graph that is to be read, whose edges have signed weights that can be zero. What
            neither can show is said there. With ``"discovery"`` and up to 200 sensors four networks are trained one
            after the other, with ``latent_layers`` of 1 and 2 and with and without ``gate``, and the one of the lowest
            validation loss is kept; what ``model_kwargs`` says of these two is not tried. A network whose edges were
            all shrunk to zero is trained once more with 30 % of the epochs dense, unless ``dense_epochs`` is given.
            (default: ``"state"``)
        model_kwargs (dict, optional): Further arguments of the network. Its ``lags`` are by default all readings of a
            window that holds a season, such as the day of hourly ones, with the preset ``"state"``. (default: ``None``)
        ensemble (int): Networks that are trained one after the other, with the seeds ``seed``, ``seed + 1`` and so on;
            their mean is the forecast, and an edge is kept if more than half of them need it, see
            :func:`~tsl_latentgnn.graphs.pooled`. Training, forecasts and files take so many times as much.
            (default: ``1``)
        seed (int): Of the weights and the order of the windows. (default: ``0``)
        accelerator (str): As Lightning's ``Trainer`` has it. (default: ``"auto"``)
        trainer_kwargs (dict, optional): Further arguments of Lightning's ``Trainer``. (default: ``None``)
        verbose (bool): Whether to say what was found in the readings, how the training goes, and how good it is.
            (default: ``True``)

    Attributes:
        settings_: How it was trained.
        best_epochs_: Best epoch of each network, counted from 0.
        tried_: A table of the networks that were tried, with their validation losses; a single row where it is one.
        scores_: A table of the errors on the validation part, beside the baselines'.
    """

    def __init__(
        self,
        horizon: int = 12,
        *,
        window: int | None = None,
        freq: str | None = None,
        likelihood: str | None = "quantile",
        quantiles: Sequence[float] = LEVELS,
        val_size: float | None = None,
        missing: float | str | Sequence[float | str] | None = None,
        profile: bool = True,
        holidays: str | None = None,
        new_sensors: bool = False,
        scaling: str | None = None,
        batch_size: int | None = None,
        epochs: int | None = None,
        dense_epochs: int | None = None,
        patience: int | None = None,
        lr: float | None = None,
        k_neighbors: int | None = None,
        sensors_at_once: int | None = None,
        preset: str = "state",
        model_kwargs: Mapping[str, Any] | None = None,
        ensemble: int = 1,
        seed: int = 0,
        accelerator: str = "auto",
        trainer_kwargs: Mapping[str, Any] | None = None,
        verbose: bool = True,
    ) -> None:
        # As scikit-learn asks for: what is given is kept as it is, and checked by fit.
        self.horizon = horizon
        self.window = window
        self.freq = freq
        self.likelihood = likelihood
        self.quantiles = quantiles
        self.val_size = val_size
        self.missing = missing
        self.profile = profile
        self.holidays = holidays
        self.new_sensors = new_sensors
        self.scaling = scaling
        self.batch_size = batch_size
        self.epochs = epochs
        self.dense_epochs = dense_epochs
        self.patience = patience
        self.lr = lr
        self.k_neighbors = k_neighbors
        self.sensors_at_once = sensors_at_once
        self.preset = preset
        self.model_kwargs = model_kwargs
        self.ensemble = ensemble
        self.seed = seed
        self.accelerator = accelerator
        self.trainer_kwargs = trainer_kwargs
        self.verbose = verbose

    # Training ------------------------------------------------------------------------------------

    def fit(
        self,
        readings: Any,
        *,
        past: Any = None,
        future: Any = None,
        static: Any = None,
        unique_id: str = "unique_id",
        ds: str = "ds",
        y: str = "y",
        folder: str | os.PathLike[str] | None = None,
    ) -> Forecaster:
        """Learn from a table of readings.

        Args:
            readings: A pandas or polars frame, wide (a time stamp in the index or the first column, then a column for
                each sensor) or long (``unique_id``, ``ds``, ``y``; further columns are further channels), or the path
                of one.
            past: A table of covariates that are known up to now, such as measured weather: wide, a column for each
                that all sensors share, or long, with ``unique_id`` and ``ds``. (default: ``None``)
            future: The same of what is known ahead, such as a plan or a weather forecast. (default: ``None``)
            static: A table of features of the sensors, such as positions or kinds, with a row for each.
                (default: ``None``)
            unique_id: Name of the column of a long table, or of ``static``, that names the sensor.
            ds: Name of the column of a long table that holds the time.
            y: Name of the column of a long table that holds the readings.
            folder: Where each epoch is kept, those of several networks, in the order of their trainings, in folders
                ``network1`` and so on in it; a training that was ended goes on from there. (default: nowhere)

        Returns:
            Forecaster: Itself.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If an argument is out of range, or the readings cannot be used; the message says where.
        """
        # Here, for it brings in Lightning.
        from .training import Choice, loss_weights, train_networks

        horizon = self._check_arguments()
        readings, past, future, static = as_tables(readings, past, future, static)
        names: Any = {"unique_id": unique_id, "ds": ds}
        own = own_names(names, readings, past, future, static)
        panel = read_panel(readings, freq=self.freq, y=y, missing=self.missing, **own)
        del readings  # a large table that was read from a file
        self._say(panel.summary())
        window = self.window or default_window(duration(panel.freq), horizon)
        rows = len(panel.index)
        held_out = max(round(validation_share(self.val_size, self.preset) * rows), horizon)
        training = np.arange(window - 1, rows - held_out - horizon)
        validation = np.arange(rows - held_out - 1, rows - horizon)
        if len(training) < MIN_WINDOWS:
            raise ValueError(
                f"'readings' must have at least {window + horizon + MIN_WINDOWS - 1} rows before the validation part "
                f"for window={window} and horizon={horizon} (got {rows - held_out} of {rows}). Take a smaller window, "
                "horizon or val_size."
            )
        seen = panel.values[: rows - held_out]
        scaling = self.scaling or ("sensor" if is_unlike(seen) else "global")
        scaling = "global" if self.new_sensors else scaling
        recipe, usual = self._recipe(panel, len(seen), scaling)
        if static is not None:
            features = read_static(static, panel.sensors, unique_id=unique_id)
            self._say("\n".join(features.findings))
            recipe = replace(recipe, static=features, static_scale=Scale.of(features.values, (0,)))
        recipe, known = _add_covariates(recipe, panel, len(seen), past, future, names)
        for table in known.values():
            self._say("\n".join(table.findings))
        series = recipe.series(panel, **known, profile=usual)
        del usual
        windows = Windows(series, training, window, horizon)
        choices = []
        for shape in shapes_to_try(self.preset, len(panel.sensors), self.model_kwargs):
            settings = choose_settings(
                seen.shape[1:],
                window,
                len(training),
                self.preset,
                gated=bool(shape.get("gate", False)),
                scaling=scaling,
                **{name: getattr(self, name) for name in SETTINGS},
            )
            network = self._network_options(recipe, settings, windows, shape)
            choices.append(Choice(shape, network, settings))
        first = choices[0].settings
        self._say(first.summary())
        shrinks = self.preset == "discovery" and self.dense_epochs is None and first.epochs > 1
        found = train_networks(
            choices,
            self.ensemble,
            windows,
            Windows(series, validation, window, horizon),
            loss_weights(torch.from_numpy(recipe.scale.scale.copy())),
            again=with_dense_epochs if shrinks else None,
            seed=self.seed,
            folder=folder,
            trainer_kwargs={
                "accelerator": self.accelerator,
                "enable_progress_bar": self.verbose and sys.stderr.isatty(),
                **(self.trainer_kwargs or {}),
            },
            say=self._say,
        )
        _, options, self.settings_ = found.choices[found.chosen]
        self.best_epochs_ = found.best_epochs
        self.tried_ = pd.DataFrame(
            {**shape, "dense_epochs": settings.dense_epochs, "val_loss": loss}
            for (shape, _, settings), loss in zip(found.choices, found.losses, strict=True)
        )
        if len(self.tried_) > 1:
            self._say(
                f"{self.tried_.to_string(float_format=lambda loss: f'{loss:.4f}')}\n"
                f"Network {found.chosen + 1} has the lowest validation loss."
            )
        model = Trained(recipe, as_one(found.networks), dict(options), window, panel.index[-1])
        watched = judged(validation, horizon * recipe.scale.scale.size)
        if len(watched) < len(validation):
            self._say(
                f"Widths and errors are those of {len(watched):,} of {len(validation):,} windows of the validation "
                "part, evenly spaced."
            )
        raw = model.forecast(series, watched)
        model = replace(
            model,
            conformal=Conformal.of(raw.y, raw.mean, raw.below, raw.above),
            edges=model.graph(series, validation),
        )
        del raw
        rivals = _baselines(model, series, training)
        forecasts = model.forecast(series, watched, tuple(self.quantiles))
        self.scores_ = score(forecasts, rivals, watched, recipe, panel.index).summary
        self._say(
            _report(
                "Errors on the validation part, which chose the epoch and the widths:", self.scores_
            )
        )
        # From here on, what is usual is known of all readings.
        self.model_ = model.with_profile_of(panel.values, panel.index)
        return self

    def _check_arguments(self) -> int:
        """Refuse what is out of range; return the horizon."""
        check_levels("quantiles", self.quantiles)
        check_choice("likelihood", self.likelihood, LIKELIHOODS)
        check_choice("scaling", self.scaling, (None, "sensor", "global"))
        check_choice("preset", self.preset, tuple(PRESETS))
        if self.preset == "discovery" and self.new_sensors:
            raise ValueError(
                "'preset' must not be 'discovery' with new_sensors=True (got both): its weights are those of pairs of "
                "sensors that were trained on."
            )
        for name in ("profile", "new_sensors", "verbose"):
            check_bool(name, getattr(self, name))
        for name in ("model_kwargs", "trainer_kwargs"):
            if not isinstance(found := getattr(self, name), Mapping | None):
                raise TypeError(
                    f"'{name}' must be a dict (got {found!r} of type {type(found).__name__})."
                )
        check_int("seed", self.seed, 0, 2**32 - 1)
        check_int("ensemble", self.ensemble, 1)
        for name in ("window", *SETTINGS):
            value = getattr(self, name)
            if value is not None and name != "lr":
                check_int(name, value, 0 if name == "dense_epochs" else 1)
        if self.lr is not None and not check_float("lr", self.lr) > 0:
            raise ValueError(f"'lr' must be positive (got {self.lr!r}).")
        if self.val_size is not None and not 0.0 < check_float("val_size", self.val_size) < 1.0:
            raise ValueError(f"'val_size' must be in (0, 1) (got {self.val_size!r}).")
        return check_int("horizon", self.horizon, 1)

    def _recipe(self, panel: Panel, rows: int, scaling: str) -> tuple[Recipe, np.ndarray | None]:
        """The recipe of the first rows, the training part, and the profile at each of them."""
        seen, index = panel.values[:rows], panel.index[:rows]
        profile = usual = None
        clock = (
            Clock.of(index, duration(panel.freq)) if self.profile and not self.new_sensors else None
        )
        if clock is not None:
            profile, usual = Profile.of(clock, seen, index, duration(panel.freq))
        units = supported_units(index, panel.freq)
        if clock is not None and clock.kinds == 2:
            # The profile tells workdays from weekends; the phase of the week beside it is learned by heart.
            units = tuple(unit for unit in units if unit != "week")
        lowest = np.fmin.reduce(panel.values, (0, 1))
        recipe = Recipe(
            sensors=panel.sensors,
            channels=panel.channels,
            freq=panel.freq.freqstr,
            tz=None if panel.tz is None else str(panel.tz),
            horizon=self.horizon,
            scale=Scale.of(seen, (0,) if scaling == "sensor" else (0, 1)),
            floor=np.where(lowest >= 0, 0.0, -np.inf).astype(np.float32),
            units=units,
            holidays=self.holidays,
            profile=profile,
        )
        return recipe, usual

    def _network_options(
        self, recipe: Recipe, settings: Settings, windows: Windows, shape: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Arguments of the network, with those of its ``shape``; those that the data fix cannot be given."""
        inputs = windows[[0]].inputs
        channels = len(recipe.channels)
        fixed = {
            "input_size": channels,
            "output_size": channels,
            "horizon": recipe.horizon,
            "n_nodes": len(recipe.sensors),
            "exog_size": inputs["u"].size(-1) if "u" in inputs else 0,
            "future_exog_size": inputs["u_future"].size(-1) if "u_future" in inputs else 0,
            "likelihood": self.likelihood,
            "k_neighbors": settings.k_neighbors,
            "preset": self.preset,
        }
        given = dict(self.model_kwargs or {})
        season = recipe.season or 0
        if self.preset == "state" and 1 < season <= settings.window:
            given.setdefault("lags", settings.window)  # further back than a recurrence carries
        if self.new_sensors:
            if recipe.static is None:
                raise ValueError("'static' must be given with new_sensors=True (got None).")
            fixed |= {"node_emb_size": 0, "static": None, "shared_static": False, "dynamic": True}
        else:
            given.setdefault("static", settings.static)
        if both := sorted(given.keys() & fixed.keys()):
            raise ValueError(
                f"'model_kwargs' must not hold what the data or other arguments fix (got {', '.join(both)})."
            )
        return {**given, **shape, **fixed}

    # Forecasts -----------------------------------------------------------------------------------

    def predict(
        self,
        readings: Any,
        *,
        past: Any = None,
        future: Any = None,
        static: Any = None,
        step: int | None = None,
        quantiles: Sequence[float] | None = None,
        level: Sequence[float] | None = None,
        adaptive: bool = False,
        unique_id: str = "unique_id",
        ds: str = "ds",
        y: str = "y",
    ) -> pd.DataFrame:
        """Forecast the steps after the last row of a table, or after rows of it.

        Args:
            readings: A table as for :meth:`fit`, of at least the window's rows. Columns are matched by name; a sensor
                that is absent is a missing one, and one that was not trained on is left out, both with a warning.
            past: Covariates of those times, if :meth:`fit` was given some.
            future: Covariates of those times and of the horizon behind them, if :meth:`fit` was given some.
            static: Features of the sensors, where those of the training do not hold: with ``new_sensors=True``, of
                all sensors of ``readings``. (default: those of the training)
            step: Rows from one forecast to the next, from the first full window on. (default: one forecast, after the
                last row)
            quantiles: Levels of the quantiles. (default: those of the forecaster)
            level: Percentages of central intervals, as ``[80, 95]``, in the place of ``quantiles``.
            adaptive: Whether the quantiles follow how often those of the forecasts before held, in the rows of
                ``readings`` that came after the training, see :func:`~tsl_latentgnn.forecaster.adaptive.adapt`.
                (default: ``False``)
            unique_id: As for :meth:`fit`, as is the next one.
            ds: As for :meth:`fit`.
            y: As for :meth:`fit`.

        Returns:
            pandas.DataFrame: A row for each forecast, step, sensor and channel: ``sensor``, ``time``, ``mean``, and
            the quantiles, such as ``q05``; with ``step`` also ``issued_at``, the last time it knows; with several
            channels also ``channel``. In the unit of the readings.

        Raises:
            NotFittedError: Before :meth:`fit`.
            ValueError: If the readings cannot be used; the message says where.
        """
        check_is_fitted(self)
        check_bool("adaptive", adaptive)
        levels = check_levels("quantiles", levels_of(self.quantiles, quantiles, level))
        return predict_table(
            self.model_, readings, levels, past=past, future=future, static=static, step=step,
            adaptive=adaptive, missing=self.missing, unique_id=unique_id, ds=ds, y=y,
        )  # fmt: skip

    def backtest(
        self,
        readings: Any,
        windows: int = 5,
        *,
        step: int | None = None,
        past: Any = None,
        future: Any = None,
        quantiles: Sequence[float] | None = None,
        level: Sequence[float] | None = None,
        adaptive: bool = False,
        unique_id: str = "unique_id",
        ds: str = "ds",
        y: str = "y",
    ) -> Backtest:
        """Forecast from several origins of a table, and compare with what came, beside the baselines.

        The network is not trained anew. Origins inside of what :meth:`fit` was given are no test; a warning says so.
        The linear baseline learns from the rows before the first origin, and the season before needs a season of them:
        they are left out where there are fewer, so rather give it the whole table than its end.

        Args:
            readings: A table as for :meth:`fit`.
            windows: Number of origins, the last ones of the table. (default: ``5``)
            step: Rows from one origin to the next. (default: the horizon)
            past: As for :meth:`predict`.
            future: As for :meth:`predict`.
            quantiles: As for :meth:`predict`.
            level: As for :meth:`predict`.
            adaptive: As for :meth:`predict`. (default: ``False``)
            unique_id: As for :meth:`fit`.
            ds: As for :meth:`fit`.
            y: As for :meth:`fit`.

        Returns:
            Backtest: Scores by model, by step, by time and by sensor, and the forecasts.

        Raises:
            NotFittedError: Before :meth:`fit`.
            ValueError: If the readings cannot be used or are too few, or no window holds a reading.
        """
        check_is_fitted(self)
        model: Trained = self.model_
        check_bool("adaptive", adaptive)
        levels = check_levels("quantiles", levels_of(self.quantiles, quantiles, level))
        readings, past, future, _ = as_tables(readings, past, future, None)
        names = {"unique_id": unique_id, "ds": ds}
        panel = self._read(readings, past, future, y=y, **names)
        last = rolling_origins(len(panel.index), model.window, model.recipe.horizon, windows, step)
        if panel.index[last[0]] < model.until:
            warnings.warn(
                f"The first origin, {panel.index[last[0]]}, is before the end of what was trained on, {model.until}: "
                "errors there are no test.",
                stacklevel=2,
            )
        check_seen(panel, last, model.window)
        series = model.series(panel, past, future, **names, ahead=False)
        if adaptive and levels:
            apart = model.recipe.horizon if step is None else step
            forecasts = forecast_adaptively(model, series, panel.index, last, apart, levels)
        else:
            forecasts = model.forecast(series, last, levels)
        before = np.arange(model.window - 1, int(last[0]) - model.recipe.horizon + 1)
        rivals = _baselines(model, series, before)
        scores = score(forecasts, rivals, last, model.recipe, panel.index)
        frame = model.frame(panel, last, forecasts, with_origin=True)
        return replace(scores, forecasts=frame.assign(y=forecasts.y.ravel()))

    def _read(self, readings: pd.DataFrame, *others: Any, y: str, **names: str) -> Panel:
        """Readings as those of the training, beside ``others``, which may have the names of the sensors."""
        own = own_names(names, readings, *others)
        return self.model_.read(readings, y=y, missing=self.missing, **own)

    def positions(self) -> pd.DataFrame | None:
        """Return the positions of the sensors by their columns in ``static``, north first; ``None`` without any."""
        check_is_fitted(self)
        recipe = self.model_.recipe
        if recipe.static is None or recipe.static.positions is None:
            return None
        columns = list(recipe.static.position_columns)
        return pd.DataFrame(recipe.static.positions, index=list(recipe.sensors), columns=columns)

    def graph(self) -> pd.DataFrame:
        """Return the learned graph: ``source``, ``target``, ``weight``, ``p_value`` and ``kept``, the heaviest first.

        A weight is the share that the source has in what its target hears; with the target's own share they sum to 1.
        With ``preset="discovery"`` it is a number of either sign, and 0, left out here, where there is no edge. It says
        little alone: ``kept`` says whether the forecast needs the edge, at a false discovery rate of 5 % on the
        validation part, see :func:`~tsl_latentgnn.graphs.edge_test`.

        Raises:
            NotFittedError: Before :meth:`fit`.
        """
        check_is_fitted(self)
        edges: pd.DataFrame = self.model_.edges
        return edges.copy()

    def streamed(self) -> StreamedForecaster:
        """Return what forecasts from windows of readings as they come, without covariates."""
        check_is_fitted(self)
        return StreamedForecaster(self.model_, self.missing)

    # Saving --------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the forecaster into a folder: the weights as safetensors, and a card in JSON.

        Raises:
            NotFittedError: Before :meth:`fit`.
            ValueError: If the folder holds something else.
        """
        check_is_fitted(self)
        save_folder(self, Path(folder))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Forecaster:
        """Read what :meth:`save` wrote. Nothing in it is run.

        Raises:
            OSError: If there is no such folder, or it may not be read.
            ValueError: If it holds something else, or what it holds is damaged.
        """
        return load_folder(cls, Path(folder))

    @staticmethod
    def from_checkpoint(path: str | os.PathLike[str]) -> CheckpointForecaster:
        """Read a Lightning checkpoint of a training in a script of one's own, with torch's ``weights_only`` safety on.

        See :class:`~tsl_latentgnn.forecaster.CheckpointForecaster`, which is returned.
        """
        from .checkpoint_forecaster import CheckpointForecaster  # here, for it brings in tsl

        return CheckpointForecaster.from_checkpoint(path)

    def _say(self, text: str) -> None:
        if self.verbose and text:
            print(text, flush=True)


def _add_covariates(
    recipe: Recipe, panel: Panel, rows: int, past: Any, future: Any, names: Mapping[str, str]
) -> tuple[Recipe, dict[str, Known]]:
    """The recipe with the columns and scales of its covariates, and these."""
    found: dict[str, Known] = {}
    for name, table in (("past", past), ("future", future)):
        if table is None:
            continue
        known = recipe.read(table, name, panel, **names, ahead=False)
        values = known.values[:rows]
        scale = Scale.of(values.reshape(-1, values.shape[-1]), (0,))
        spec: Any = {name: (known.columns, scale)}
        recipe = replace(recipe, **spec)
        found[name] = known
    return recipe, found


def _baselines(model: Trained, series: Series, training: np.ndarray) -> dict[str, Baseline]:
    """Baselines in the unit of the readings, which learn from windows that end at the rows ``training``."""
    recipe = model.recipe
    return baselines(
        series.values, series.profile, recipe.step, model.window, recipe.horizon, training
    )


def _report(title: str, scores: pd.DataFrame) -> str:
    """A table of scores, and in words whether a baseline is better."""
    lines = [title, scores.to_string(float_format=lambda value: f"{value:.4g}")]
    own, best = scores["mae"].iloc[0], scores["mae"].iloc[1:].min()
    if best < own:
        lines.append(
            f"The baseline '{scores['mae'].iloc[1:].idxmin()}' is better than the network (MAE {best:.4g} for "
            f"{own:.4g}): take it, or train longer, on more readings or with another window."
        )
    return "\n".join(lines)
