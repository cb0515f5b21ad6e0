"""One experiment: data, model, training, scores."""

from __future__ import annotations

import inspect
import os
import statistics
import warnings
from datetime import datetime, timezone
from functools import partial
from typing import Any, NamedTuple

from tsl_latentgnn.engines.checkpoint import read_checkpoint
from tsl_latentgnn.engines.processes import EndTogether, share_loss
from tsl_latentgnn.engines.resume import RunState, Stopping, exit_on_sigterm
from tsl_latentgnn.engines.run_checkpoints import BestCheckpoint, RunCheckpointIO, check_fits, hold

import torch
from lightning_fabric import Fabric
from omegaconf import DictConfig
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from torchmetrics import MetricCollection
from tsl.metrics.torch import MaskedMAE, MaskedMAPE, MaskedMSE

from benchmarks.data.windows import ForecastingData, load_data
from benchmarks.report.records import collect_errors, metric_key
from benchmarks.run.launch import keep_float16, start_processes
from benchmarks.run.provenance import (
    EpochTimer,
    command_line,
    git_revision,
    hardware,
    peak_memory_mib,
    reset_peak_memory,
    versions,
)
from benchmarks.run.resume import check_trainable, find_last
from benchmarks.settings import _to_dict, flatten, get_settings
from benchmarks.zoo import check_name, get_engine_class, get_model_class

LOGGERS = ("none", "tensorboard", "wandb")


LOSSES = {"mae": MaskedMAE, "mse": MaskedMSE}


#: What a run that goes on from a checkpoint may not change, beside its data and model: the optimizer's state and the
#: metrics so far come from the checkpoint.
_KEPT = (
    *("dataset", "engine", "loss", "optimizer", "lr_scheduler"),
    *("stride", "batch_size", "grad_clip_val"),
)


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
    with hold(cfg.run.dir, "hydra.run.dir"):
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
    anew = "or train from the start with ckpt_path=null"
    settings = "the dataset, model and settings of its run (config.yaml in its folder)"
    fits = partial(
        check_fits, predictor=predictor, about=about, advice=f"Start with {settings}, {anew}."
    )
    checkpoint_io = RunCheckpointIO(fits, advice=f", {anew}")
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
