"""Train a model on a dataset, score it, note the result.

``python -m benchmarks.forecasting model=gwnet dataset=la`` takes Hydra overrides of
``config/default.yaml``; ``-m`` sweeps. The protocol is that of tsl's traffic example: masked MAE as
loss (by default), early stopping on the validation MAE, the best checkpoint is tested. A run that was ended,
however, goes on with ``ckpt_path=last``, and ends as if nothing had been.
"""

from __future__ import annotations

import inspect
import math
import os
import statistics
import sys
import warnings
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from hydra import compose, initialize_config_dir
from lightning_fabric import Fabric
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn
from torchmetrics import MetricCollection

from benchmarks.checkpoints import (
    BestCheckpoint,
    RunCheckpointIO,
    check_fits,
    hold,
)
from benchmarks.environment import (
    command_line,
    git_revision,
    hardware,
    peak_memory_mib,
    reset_peak_memory,
    versions,
)
from benchmarks.models import BASELINES, check_name, get_engine_class, get_model_class
from benchmarks.precision import keep_float16
from benchmarks.processes import EndTogether, is_first_process, share_loss, start_processes
from benchmarks.results import (
    CONFIG_DIR,
    SETTINGS,
    append_record,
    collect_errors,
    describe,
    flatten,
    metric_key,
)
from benchmarks.training import EpochTimer, RunState, Stopping, exit_on_sigterm
from tsl_latentgnn._compat import mend_tsl
from tsl_latentgnn.engines.checkpoint import read_checkpoint

mend_tsl()

from tsl.experiment import Experiment  # noqa: E402
from tsl.metrics.torch import MaskedMAE, MaskedMAPE, MaskedMSE  # noqa: E402

from benchmarks.data import ForecastingData, load_data  # noqa: E402

LOGGERS = ("none", "tensorboard", "wandb")
LOSSES = {"mae": MaskedMAE, "mse": MaskedMSE}

#: What makes two starts the same run for ``ckpt_path=last``. More epochs or patience make it longer.
_SAME_RUN = (
    *("seed", "label", "data_dir"),
    *(key for key in SETTINGS if key not in ("epochs", "patience")),
)

#: What a run that goes on from a checkpoint may not change, beside its data and model: the optimizer's state and the
#: metrics so far come from the checkpoint.
_KEPT = (
    *("dataset", "engine", "loss", "optimizer", "lr_scheduler"),
    *("stride", "batch_size", "grad_clip_val"),
)

#: For Hydra in the other processes of a run: no folder and no log.
_QUIET = ("hydra.run.dir=.", "hydra/job_logging=disabled", "hydra/hydra_logging=disabled")


class Outcome(NamedTuple):
    """What a run leaves behind.

    Args:
        record: The result, as one line of the results file.
        predictor: The Lightning module with its best weights, frozen.
        data: The data that it was trained on.
        checkpoint: Path of the best checkpoint; ``None`` for a model that is not trained.
    """

    record: dict[str, Any]
    predictor: Any
    data: ForecastingData
    checkpoint: str | None


def run(cfg: DictConfig) -> dict[str, Any]:
    """Run one experiment, append its result to ``cfg.results_file`` and print it as a table.

    Args:
        cfg: See :func:`fit_and_score`.

    Returns:
        dict: The result as written.

    Raises:
        ValueError: If a name is unknown or a value does not fit; the message names the key.
    """
    record = fit_and_score(cfg).record
    _publish(cfg.results_file, record)
    return record


@rank_zero_only
def _publish(path: str, record: dict[str, Any]) -> None:
    if not append_record(path, record):
        print(f"The result of this run is in {path} already.")
    print(describe(record))


def compose_run(
    overrides: Sequence[str], folder: Path, seed: int, data_dir: str | None = None
) -> DictConfig:
    """Return the configuration of a run that no command line starts.

    Args:
        overrides: Hydra overrides of ``config/default.yaml``.
        folder: Folder of the run.
        seed: Its random seed; to seed the generators is left to the caller.
        data_dir: Folder of the dataset. (default: tsl's storage)
    """
    with initialize_config_dir(str(CONFIG_DIR), version_base=None):
        cfg = compose("default", overrides=[*overrides, f"seed={seed}"])
    if data_dir is not None:
        cfg.data_dir = data_dir
    with open_dict(cfg):
        cfg.run = {"dir": str(folder), "name": f"{cfg.model.name}_{cfg.dataset.name}", "seed": seed}
    return cfg


def fit_and_score(cfg: DictConfig) -> Outcome:
    """Train the model of ``cfg`` and score its best weights on the validation and test parts.

    Args:
        cfg: ``config/default.yaml`` with its overrides, and ``run.dir`` and ``run.name``, which
            tsl's ``Experiment`` adds.

    Raises:
        ValueError: If a name is unknown or a value does not fit; the message names the key.
    """
    trained = check_trainable(cfg)
    fabric = start_processes(cfg.trainer)
    if "num_threads" in cfg:
        torch.set_num_threads(cfg.num_threads)  # to start processes is to divide the threads
    if trained and cfg.ckpt_path == "last":
        cfg.ckpt_path = find_last(cfg)
        if cfg.ckpt_path is not None:
            cfg.run.dir = os.path.dirname(cfg.ckpt_path)
    # The first process has a folder, and sees which checkpoint is there.
    cfg.run.dir, cfg.ckpt_path = fabric.broadcast((cfg.run.dir, cfg.ckpt_path))
    if not trained:
        return _fit_and_score(cfg, trained, fabric)
    with hold(cfg.run.dir):
        return _fit_and_score(cfg, trained, fabric)


def _fit_and_score(cfg: DictConfig, trained: bool, fabric: Fabric) -> Outcome:
    exp_logger = build_logger(cfg)
    _silence_lightning()
    reset_peak_memory()
    with fabric.rank_zero_first():  # tsl builds files
        data = load_data(cfg)
    predictor = build_predictor(cfg, data)

    about = {
        "dataset": cfg.dataset.name,
        "model": cfg.model.name,
        "n_nodes": data.windows.n_nodes,
        "n_channels": data.windows.n_channels,
        "window": cfg.window,
        "horizon": cfg.horizon,
        **flatten({key: value for key, value in get_settings(cfg).items() if key in _KEPT}),
    }
    state = RunState(cfg.run.get("seed", cfg.seed), about)
    timer = EpochTimer()
    stopping = Stopping(monitor="val_mae", patience=cfg.patience, mode="min")
    checkpoint = BestCheckpoint(cfg.run.dir)
    checkpoint_io = RunCheckpointIO(partial(check_fits, predictor=predictor, about=about))
    arguments = {
        "max_epochs": cfg.epochs,
        "use_distributed_sampler": False,  # the batches of the data module are shared already
        "default_root_dir": cfg.run.dir,
        "logger": exp_logger,
        "gradient_clip_val": cfg.grad_clip_val,
        "callbacks": [
            EndTogether(),
            *([state, timer, stopping, data.card(), checkpoint] if trained else []),
        ],
        "enable_checkpointing": trained,
        **keep_float16(_to_dict(cfg.trainer)),
    }
    arguments["plugins"] = [checkpoint_io, *(arguments.get("plugins") or [])]
    trainer = Trainer(**arguments)
    with exit_on_sigterm():
        if trained:
            _check_batches(cfg, data)
            trainer.fit(predictor, datamodule=data.datamodule, ckpt_path=cfg.ckpt_path)
            if checkpoint.best_model_path:
                best = read_checkpoint(checkpoint.best_model_path, "best_model_path")
                predictor.load_state_dict(best["state_dict"])

        predictor.freeze()
        (val,) = trainer.validate(predictor, datamodule=data.datamodule, verbose=False)
        (test,) = trainer.test(predictor, datamodule=data.datamodule, verbose=False)
    device = trainer.strategy.root_device
    marks = data.marks()
    progress: Any = trainer.fit_loop.epoch_progress
    record = {
        "run": state.run_id,
        "dataset": cfg.dataset.name,
        "model": cfg.model.name,
        "label": None if cfg.label is None else str(cfg.label),  # label=32 is a number to Hydra
        "seed": state.seed,
        "val": collect_errors(val, "val", marks),
        "test": collect_errors(test, "test", marks),
        "parameters": sum(parameter.numel() for parameter in predictor.model.parameters()),
        "seconds_per_epoch": statistics.median(timer.seconds) if timer.seconds else None,
        # Where a resumed run had been stopped early, Lightning's `current_epoch` is one too low.
        "epochs": progress.current.processed,
        "peak_mib": peak_memory_mib(device),
        "settings": get_settings(cfg),
        "versions": versions(),
        "hardware": hardware(device),
        "command": command_line(),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "git": git_revision(),
    }
    return Outcome(record, predictor, data, checkpoint.best_model_path if trained else None)


def check_trainable(cfg: DictConfig) -> bool:
    """Return whether the model of ``cfg`` is trained.

    Raises:
        ValueError: If ``ckpt_path`` is given for a model without training, or is neither
            ``"last"`` nor a file.
    """
    get_model_class(cfg.model.name)
    trained = cfg.model.name not in BASELINES
    if cfg.ckpt_path is not None and not trained:
        raise ValueError(
            f"'ckpt_path' must be null for model {cfg.model.name}, which is not trained "
            f"(got {cfg.ckpt_path!r})."
        )
    if cfg.ckpt_path not in (None, "last") and not os.path.isfile(cfg.ckpt_path):
        raise ValueError(
            f"'ckpt_path' must be a checkpoint (got {cfg.ckpt_path!r}: no such file); "
            "ckpt_path=last finds that of this run."
        )
    return trained


def find_last(cfg: DictConfig) -> str | None:
    """Return the ``last.ckpt`` from which the run of ``cfg`` goes on; ``None``, with a warning, if there is none.

    It is that of ``cfg.run.dir``, else the newest under ``cfg.run_root`` whose run has the same settings, seed
    and label, apart from ``epochs`` and ``patience``.
    """
    own = os.path.join(cfg.run.dir, "last.ckpt")
    if os.path.isfile(own):
        return own
    wanted = _to_dict(cfg)
    found = []
    for path in Path(cfg.run_root).rglob("last.ckpt"):
        config = _read_config(path.with_name("config.yaml"))
        if all(config.get(key, ...) == wanted[key] for key in _SAME_RUN):
            found.append(path)
    if found:
        return str(max(found, key=lambda path: path.stat().st_mtime).resolve())
    rank_zero_warn(
        f"'ckpt_path' is last, but there is no checkpoint of this run under {cfg.run_root!r} "
        "('run_root'): it starts from the beginning."
    )
    return None


def _read_config(path: Path) -> dict[str, Any]:
    """The configuration that tsl leaves in the folder of a run; empty where it did not get to it."""
    try:
        return _to_dict(OmegaConf.load(path))
    except (OSError, ValueError, AssertionError, yaml.YAMLError, OmegaConfBaseException):
        return {}


def build_predictor(cfg: DictConfig, data: ForecastingData) -> Any:
    """Return the Lightning module that trains and scores the model of ``cfg`` on ``data``.

    Raises:
        ValueError: If the engine, the model, the optimizer or the scheduler has an unknown name.
    """
    model_class = get_model_class(cfg.model.name)
    model_kwargs = data.model_kwargs()
    model_class.filter_model_args_(model_kwargs)
    model_kwargs.update(_to_dict(cfg.model.hparams))
    if model_kwargs.get("candidates") is not None:
        model_kwargs["candidates"] = _candidates(model_kwargs["candidates"], data)

    optimizer = _torch_class(
        "optimizer.name", cfg.optimizer.name, torch.optim, torch.optim.Optimizer
    )
    scheduler, scheduler_kwargs = None, None
    if cfg.lr_scheduler is not None:
        schedulers = torch.optim.lr_scheduler
        scheduler = _torch_class(
            "lr_scheduler.name", cfg.lr_scheduler.name, schedulers, schedulers.LRScheduler
        )
        scheduler_kwargs = _to_dict(cfg.lr_scheduler.get("hparams") or {})

    predictor = share_loss(get_engine_class(cfg.engine.name))(
        model_class=model_class,
        model_kwargs=model_kwargs,
        optim_class=optimizer,
        optim_kwargs=_to_dict(cfg.optimizer.hparams),
        scheduler_class=scheduler,
        scheduler_kwargs=scheduler_kwargs,
        loss_fn=LOSSES[check_name("loss", cfg.loss, LOSSES)](),
        **_to_dict(cfg.engine.hparams),
    )
    # torchmetrics merges for good the metrics that agree on the first batch; those of a batch
    # without a valid reading all agree on zero.
    for split, marks in (("train", {}), ("val", data.marks()), ("test", data.marks())):
        metrics = MetricCollection(build_metrics(marks), prefix=f"{split}_", compute_groups=False)
        setattr(predictor, f"{split}_metrics", metrics)
    return predictor


def _candidates(name: Any, data: ForecastingData) -> Any:
    """The edges of the dataset's graph, to which the model restricts its own."""
    if name != "connectivity":
        raise ValueError(f"'model.hparams.candidates' must be connectivity or null (got {name!r}).")
    return data.windows.edge_index


def build_metrics(marks: dict[str, int]) -> dict[str, Any]:
    """Return tsl's masked metrics over the horizon and at the given steps of it."""
    metrics = {}
    for name, metric in (("mae", MaskedMAE), ("mse", MaskedMSE), ("mape", MaskedMAPE)):
        metrics[metric_key(name)] = metric()
        for mark, step in marks.items():
            metrics[metric_key(name, mark)] = metric(at=step)
    return metrics


def build_logger(cfg: DictConfig) -> Logger | bool:
    """Return the Lightning logger of ``cfg.logger``; ``False`` for none.

    Raises:
        ValueError: If ``cfg.logger.backend`` has an unknown name.
    """
    backend = check_name("logger.backend", cfg.logger.backend, LOGGERS)
    if backend == "none":
        return False
    tags = list(cfg.tags)
    exp_logger: Logger
    if backend == "wandb":
        exp_logger = WandbLogger(
            name=cfg.run.name,
            save_dir=cfg.run.dir,
            project=cfg.logger.project,
            offline=cfg.logger.offline,
            tags=tags,
        )
    else:
        exp_logger = TensorBoardLogger(
            save_dir=cfg.run.dir, name=f"{cfg.run.name}_{'_'.join(tags)}"
        )
    exp_logger.log_hyperparams(_to_dict(cfg))
    return exp_logger


def _torch_class(key: str, name: str, module: Any, base: type) -> Any:
    """Return a class of a torch module by its name, if it is a proper subclass of ``base``."""
    classes = {
        label: value
        for label, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, base) and value is not base
    }
    return classes[check_name(key, name, sorted(classes))]


def get_settings(cfg: DictConfig) -> dict[str, Any]:
    """Return what a result depends on, beside its seed: the settings of its record."""
    values = _to_dict(cfg)
    return {key: values[key] for key in SETTINGS}


def _to_dict(node: Any) -> dict[str, Any]:
    """Return a part of the configuration in plain Python types, which checkpoints can hold."""
    value = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    assert isinstance(value, dict)
    return {str(key): item for key, item in value.items()}


def _check_batches(cfg: DictConfig, data: ForecastingData) -> None:
    if data.datamodule.train_len < cfg.batch_size:
        raise ValueError(
            f"'batch_size' must be at most the {data.datamodule.train_len} windows of the training "
            f"part, whose incomplete batches tsl drops (got {cfg.batch_size})."
        )


def _silence_lightning() -> None:
    """Drop two warnings of every run: tsl logs each metric and leaves its config in the folder."""
    for message in (
        r"You called `self.log\(.*no logger configured",
        "Checkpoint directory .* exists",
    ):
        warnings.filterwarnings("ignore", message=message)


class _Experiment(Experiment):
    """tsl's, of which only the first process of a run writes."""

    log_config = rank_zero_only(Experiment.log_config)


def objective(cfg: DictConfig) -> float:
    """Run one experiment, and return its validation MAE, which a sweeper may minimize.

    Args:
        cfg: See :func:`fit_and_score`.

    Returns:
        float: The validation MAE; infinite where the model forecasts what is no number.
    """
    mae = run(cfg)["val"]["mae"]
    return math.inf if mae is None else mae


def main() -> None:
    """Run the experiment that the command line describes."""
    experiment = _Experiment(run_fn=objective, config_path=str(CONFIG_DIR), config_name="default")
    if len(sys.argv) > 2 and sys.argv[2].startswith("-"):
        # tsl has put an override first, and Hydra takes none on both sides of a flag such as -m.
        sys.argv.append(sys.argv.pop(1))
    # Lightning starts the other processes with this command, from which tsl has taken these.
    sys.argv[1:1] = [
        f"--config-path={experiment.config_path}",
        f"--config-name={experiment.config_name}",
    ]
    if not is_first_process():
        sys.argv += _QUIET
    experiment.run()


if __name__ == "__main__":
    main()
