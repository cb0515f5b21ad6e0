"""A search for the settings of a forecaster with Optuna, which the extra ``tune`` brings."""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage, RDBStorage, fail_stale_trials
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from pytorch_lightning import Callback, LightningModule, Trainer
from sklearn.base import clone
from sqlalchemy.exc import DatabaseError

from .._checks import check_int
from ..models import PRESETS
from .forecaster import MIN_WINDOWS, Forecaster
from .panel import Panel, read_panel
from .recipe import duration
from .settings import LR as DEFAULT_LR
from .settings import MIN_EPOCHS, default_window, validation_share

#: Epochs before which no trial is ended, and trials that all others are compared with.
WARMUP_EPOCHS, STARTUP_TRIALS = 5, 4
#: Range of the learning rate, which is searched on a logarithmic scale.
LR = (1e-3, 2e-2)
#: Dense epochs of a graph that is to be read, where it has some.
DENSE = 4
#: Settings that are arguments of the forecaster; the others are those of its network.
_OWN = ("window", "k_neighbors", "lr", "dense_epochs")
#: Arguments that change how a training runs, not what it learns.
_RUNNING = ("accelerator", "ensemble", "trainer_kwargs", "verbose")
_DONE = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
#: Seconds from one sign of life of a trial in a database to the next, and those without one after which it is given up.
HEARTBEAT, PATIENCE = 60, 300
#: Of a trial, which other one's settings it has.
_SECOND_TRY = "second try of"


def tune(
    forecaster: Forecaster,
    readings: Any,
    *,
    trials: int = 20,
    storage: str | None = None,
    name: str = "tsl-latentgnn",
    **tables: Any,
) -> Study:
    """Search for the settings with the smallest validation loss of :meth:`Forecaster.fit
    <tsl_latentgnn.Forecaster.fit>`.

    Searched are those of these that ``forecaster`` leaves open:

    =================  ==========================================================================================
    ``window``         the default one, twice and four times that, as far as the readings reach
    ``hidden_size``    32, 64 or 128
    ``k_neighbors``    4, 8 or 16
    ``lr``             0.001 to 0.02
    ``dropout``        0, 0.1, 0.2 or 0.3
    ``latent_layers``  1, 2 or 3
    ``gate``           with ``preset="discovery"``: with or without
    ``dense_epochs``   with ``preset="discovery"``: 0 or 4, of no more epochs than that 0
    =================  ==========================================================================================

    ``scaling`` is not: it is the unit of the loss, so that losses of two scalings cannot be compared. The first trial
    has the default settings. A trial trains a single network, of an ensemble too; one whose loss is above the median of
    the others' at the same epoch is ended.

    Args:
        forecaster (Forecaster): What is trained; an argument that it is given, in ``model_kwargs`` too, is kept.
        readings: As for :meth:`Forecaster.fit <tsl_latentgnn.Forecaster.fit>`.
        trials (int): Trials of the study, those of former calls and other processes included. Several processes may
            end with one more each. (default: ``20``)
        storage (str, optional): Where the study is kept, so that it can go on and several processes can work on it: a
            database (``"sqlite:///study.db"``, not on a network drive), or the path of a journal file, which may be on
            one. In a database, a trial of which nothing was heard for five minutes, for its process was killed, fails
            and is tried once more, when another begins or the study goes on; a process that was only suspended for so
            long ends with an error. In a journal file it stays as it is, and does not count. (default: ``None``, in
            memory)
        name (str): Of the study in the storage. (default: ``"tsl-latentgnn"``)
        **tables: Further arguments of :meth:`Forecaster.fit <tsl_latentgnn.Forecaster.fit>`.

    Returns:
        optuna.Study: The study; :func:`best_of` makes a forecaster of it.

    Raises:
        ValueError: If nothing is left open, the storage cannot be opened, or its study is of other readings or of
            another forecaster.
    """
    trials = check_int("trials", trials, 1)
    names = {key: tables[key] for key in ("unique_id", "ds", "y") if key in tables}
    panel = read_panel(readings, freq=forecaster.freq, missing=forecaster.missing, **names)
    choices = _choices(forecaster, panel)
    study = _open(storage, name, forecaster.seed)
    _check_same(study, forecaster, panel)

    def objective(trial: Trial) -> float:
        chosen = {
            key: trial.suggest_float(key, *LR, log=True)
            if key == "lr"
            else trial.suggest_categorical(key, values)
            for key, values in choices.items()
        }
        watch = Watch(trial)
        tried = _with(forecaster, chosen).set_params(ensemble=1)
        given = dict(forecaster.trainer_kwargs or {})
        given["callbacks"] = [*given.get("callbacks", []), watch]
        tried.set_params(trainer_kwargs=given, verbose=False).fit(readings, **tables)
        if watch.interrupted:
            raise KeyboardInterrupt
        return float(tried.tried_.val_loss.min())

    def say(study: Study, trial: FrozenTrial) -> None:
        if forecaster.verbose:
            value = "failed" if trial.value is None else f"{trial.value:.4g}"
            ended = ", ended early" if trial.state == TrialState.PRUNED else ""
            print(f"Trial {trial.number}: {value}{ended}; {_words(trial.params)}", flush=True)

    def end(study: Study, trial: FrozenTrial) -> None:
        if _is_done(study, trials):
            study.stop()

    if len(study.trials) == 0:
        study.enqueue_trial(_defaults(choices, forecaster.preset))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        fail_stale_trials(study)
    if not _is_done(study, trials):
        study.optimize(objective, callbacks=[say, end], catch=(FloatingPointError,))
    return study


def _is_done(study: Study, trials: int) -> bool:
    """Whether there are so many trials, and none that is to be tried again; the two tries of one count once."""
    found = study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get(_SECOND_TRY) for trial in found}
    ended = sum(trial.state in _DONE and trial.number not in again for trial in found)
    return ended >= trials and all(trial.state != TrialState.WAITING for trial in found)


def _try_again(study: Study, trial: FrozenTrial) -> None:
    """Once: what kills its process each time is the trial itself."""
    if _SECOND_TRY not in trial.user_attrs:
        study.enqueue_trial(trial.params, user_attrs={_SECOND_TRY: trial.number})


def best_of(forecaster: Forecaster, study: Study) -> Forecaster:
    """Return an untrained copy of a forecaster with the best settings of a study.

    Raises:
        ValueError: If no trial was completed.
    """
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        raise ValueError(
            f"'study' must have a trial that was completed (got {len(study.trials)}, of which none was). Take more "
            "trials, or look at the readings."
        )
    return _with(forecaster, study.best_params)


class Watch(Callback):
    """Reports each epoch's validation loss to a trial, and ends the training when it is to be pruned.

    Args:
        trial: The trial.
    """

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.interrupted = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report an epoch."""
        if trainer.sanity_checking:
            return
        loss = float(trainer.callback_metrics["val_loss"])
        self.trial.report(loss, trainer.current_epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Note a Ctrl-C, which ends a training with what it has: it is to end the search."""
        self.interrupted = isinstance(exception, KeyboardInterrupt)


def _choices(forecaster: Forecaster, panel: Panel) -> dict[str, Sequence[Any]]:
    """Values of what the forecaster leaves open."""
    horizon, rows, nodes = forecaster.horizon, len(panel), len(panel.sensors)
    share = validation_share(forecaster.val_size, forecaster.preset)
    held_out = max(round(share * rows), horizon)
    window = default_window(duration(panel.freq), check_int("horizon", horizon, 1))
    longest = rows - held_out - horizon - (MIN_WINDOWS - 1)
    choices: dict[str, Sequence[Any]] = {
        # The default one in any case: where it is too long, the training says so.
        "window": [window, *(w for w in (2 * window, 4 * window) if w <= longest)],
        "hidden_size": [32, 64, 128],
        "k_neighbors": sorted({min(k, nodes) for k in (4, 8, 16)}),
        "lr": LR,
        "dropout": [0.0, 0.1, 0.2, 0.3],
        "latent_layers": [1, 2, 3],
    }
    if forecaster.preset == "discovery":  # of which each trial trains one network, not all
        epochs = forecaster.epochs
        epochs = MIN_EPOCHS if epochs is None else check_int("epochs", epochs, 1)
        choices |= {
            "k_neighbors": [None, *choices["k_neighbors"]],
            "gate": [False, True],
            # Of fewer epochs, none would be left to shrink weights.
            "dense_epochs": [0, DENSE] if epochs > DENSE else [0],
        }
    given = forecaster.model_kwargs or {}
    fixed = {*given, *(key for key in _OWN if getattr(forecaster, key) is not None)}
    found = {key: values for key, values in choices.items() if key not in fixed}
    if not found:
        raise ValueError(
            f"'forecaster' must leave one of {', '.join(choices)} open (got all of them fixed)."
        )
    return found


def _defaults(choices: Mapping[str, Sequence[Any]], preset: str) -> dict[str, Any]:
    """What the forecaster would take by itself; of a graph that is to be read, the first network that it tries."""
    names = ("hidden_size", "dropout", "latent_layers", "gate")
    defaults: dict[str, Any] = {"lr": DEFAULT_LR, **{name: PRESETS[preset][name] for name in names}}
    if "window" in choices:
        defaults["window"] = choices["window"][0]
    if "k_neighbors" in choices:
        sizes = choices["k_neighbors"]
        defaults["k_neighbors"] = None if None in sizes else min(8, max(sizes))
    if "dense_epochs" in choices:
        defaults["dense_epochs"] = choices["dense_epochs"][0]
    return {key: value for key, value in defaults.items() if key in choices}


def _with(forecaster: Forecaster, chosen: Mapping[str, Any]) -> Forecaster:
    own = {key: value for key, value in chosen.items() if key in _OWN}
    others = {key: value for key, value in chosen.items() if key not in _OWN}
    kwargs = {**(forecaster.model_kwargs or {}), **others}
    tried: Forecaster = clone(forecaster)
    return tried.set_params(**own, model_kwargs=kwargs)


def _open(storage: str | None, name: str, seed: int) -> Study:
    """The study of a storage, which is made if it is not there."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    where: Any = storage
    try:
        if storage is not None and "://" not in storage:
            where = JournalStorage(JournalFileBackend(os.fspath(storage)))
        elif storage is not None:
            where = _database(storage)
        return optuna.create_study(
            storage=where,
            study_name=name,
            load_if_exists=True,
            direction="minimize",
            # Processes that share a study must not all draw the same numbers.
            sampler=TPESampler(seed=seed if storage is None else None, constant_liar=True),
            pruner=MedianPruner(STARTUP_TRIALS, WARMUP_EPOCHS),
        )
    except Exception as error:  # of Optuna, SQLAlchemy, a driver or the file system
        first = str(error).partition("\n")[0]
        raise ValueError(
            "'storage' must be a database, such as sqlite:///study.db, or the path of a journal file (got "
            f"{storage!r}: {type(error).__name__}: {first})."
        ) from error


def _database(url: str) -> RDBStorage:
    """A database in which trials give signs of life; other processes that start just now may be making it."""
    with warnings.catch_warnings():
        # Experimental since 2.9, and the callback has another name since 4.9.
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.simplefilter("ignore", FutureWarning)
        make = partial(
            RDBStorage,
            url,
            heartbeat_interval=HEARTBEAT,
            grace_period=PATIENCE,
            failed_trial_callback=_try_again,
        )
        for wait in (1, 2):
            with suppress(DatabaseError):
                return make()
            time.sleep(wait)
        return make()


def _check_same(study: Study, forecaster: Forecaster, panel: Panel) -> None:
    """Refuse to go on with a study of something else: its losses could not be compared."""
    params = {
        key: value
        for key, value in forecaster.get_params(deep=False).items()
        if key not in _RUNNING
    }
    about = {
        "readings": hashlib.sha256(panel.values.tobytes()).hexdigest()[:16],
        "sensors": len(panel.sensors),
        "first": str(panel.index[0]),
        "last": str(panel.index[-1]),
        **params,
    }
    ours: dict[str, Any] = json.loads(json.dumps(about, default=str))
    theirs = study.user_attrs.get("of")
    if theirs is None:
        study.set_user_attr("of", ours)
        return
    differ = [
        f"{key}={theirs.get(key)!r}, not {ours[key]!r}"
        for key in ours
        if theirs.get(key) != ours[key]
    ]
    if differ:
        raise ValueError(
            f"'storage' must hold a study of the same readings and forecaster (got {study.study_name!r} with "
            f"{'; '.join(differ)}). Say another name= or another storage."
        )


def _words(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value:.4g}" for key, value in params.items())
