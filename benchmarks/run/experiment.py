"""One experiment: data, model, training, scores."""

from __future__ import annotations

import os
import statistics
import time
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from tsl_latentgnn.engines.checkpoint import read_checkpoint
from tsl_latentgnn.engines.memory import MemoryWarning
from tsl_latentgnn.engines.processes import EndTogether, share_loss
from tsl_latentgnn.engines.resume import RunState, Stopping, exit_on_sigterm
from tsl_latentgnn.engines.run_checkpoints import BestCheckpoint, RunCheckpointIO, check_fits, hold
from tsl_latentgnn.models import PRESETS

import torch
from lightning_fabric import Fabric
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from torch import Tensor
from torchmetrics import MetricCollection
from tsl.metrics.torch import MaskedMAE, MaskedMAPE, MaskedMetric, MaskedMSE

from benchmarks.data.windows import ForecastingData, load_data
from benchmarks.report.records import collect_errors, metric_key
from benchmarks.run.forecasts import check_path, keep_forecasts
from benchmarks.run.launch import keep_float16, start_processes
from benchmarks.run.provenance import (
    EpochTimer,
    MinutesCap,
    command_line,
    environment,
    peak_memory_mib,
    reset_peak_memory,
)
from benchmarks.run.resume import find_last, number_run
from benchmarks.settings import Settings, complete_settings, flatten

#: What a run that goes on from a checkpoint may not change, beside its data and model: the optimizer's state and the
#: metrics so far come from the checkpoint.
_KEPT = (
    *("dataset", "engine", "loss", "optimizer", "lr_scheduler"),
    *("stride", "batch_size", "grad_clip_val", "max_minutes"),
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


def fit_and_score(settings: Settings) -> Outcome:
    """Train a model and score its best weights on the validation and, unless ``score_test`` is false, the test part.

    Raises:
        ValueError: If a value does not fit; the message names the key.
    """
    fabric = start_processes(settings.trainer)
    if settings.keep_forecasts is not None:
        check_path(settings.keep_forecasts)
        if fabric.world_size > 1:
            raise ValueError(
                "'keep_forecasts' must be null with several processes, each of which has its share of the windows "
                f"(got {settings.keep_forecasts!r} and {fabric.world_size} processes)."
            )
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)  # to start processes is to divide the threads
    run_dir, path = settings.run_dir, settings.ckpt_path
    if path == "last":
        path = find_last(settings)
        run_dir = run_dir if path is None else os.path.dirname(path)
    # The first process has a folder, and sees which checkpoint is there.
    run_dir, path = fabric.broadcast((run_dir, path))
    settings = replace(settings, run_dir=run_dir, ckpt_path=path)
    with hold(run_dir, "hydra.run.dir") if settings.model.trained else nullcontext():
        if settings.model.trained and fabric.is_global_zero:
            number_run(run_dir, settings.run_root)
        return _fit_and_score(settings, fabric)


def _fit_and_score(settings: Settings, fabric: Fabric) -> Outcome:
    trained = settings.model.trained
    exp_logger = build_logger(settings)
    # tsl logs each metric, and leaves its config in the folder.
    for message in (r"You called `self.log\(.*no logger", "Checkpoint directory .* exists"):
        warnings.filterwarnings("ignore", message)
    reset_peak_memory()
    before = time.process_time()
    with fabric.rank_zero_first():  # tsl builds files
        data = load_data(settings)
    if trained and data.datamodule.train_len < settings.batch_size:
        raise ValueError(
            f"'batch_size' must be at most the {data.datamodule.train_len} windows of the training "
            f"part, whose incomplete batches tsl drops (got {settings.batch_size})."
        )
    predictor = build_predictor(settings, data)

    names = {"dataset": settings.dataset.name, "model": settings.model.name}
    about = {
        **names,
        "n_nodes": data.windows.n_nodes,
        "n_channels": data.windows.n_channels,
        "window": settings.window,
        "horizon": settings.horizon,
        **flatten({key: settings.config[key] for key in _KEPT}),
    }
    state = RunState(settings.seed, about)
    timer = EpochTimer()
    stopping = Stopping(monitor="val_mae", patience=settings.patience, mode="min")
    checkpoint = BestCheckpoint(settings.run_dir)
    anew = "or train from the start with ckpt_path=null"
    same = "the dataset, model and settings of its run (config.yaml in its folder)"
    fits = partial(
        check_fits,
        predictor=predictor,
        about=about,
        advice=f"Start with {same}, {anew}.",
        defaults={key: value for key, value in complete_settings({}).items() if key in about},
    )
    checkpoint_io = RunCheckpointIO(fits, advice=f", {anew}")
    cards = data.cards(settings.model.cls)
    cap = MinutesCap(settings.max_minutes)
    callbacks = [state, timer, stopping, cap, *cards, checkpoint, MemoryWarning()]
    arguments = {
        "max_epochs": settings.epochs,
        "use_distributed_sampler": False,  # the batches of the data module are shared already
        # Under Slurm Lightning looks there for checkpoints of its own, and loads them unasked.
        "default_root_dir": os.path.join(settings.run_dir, "lightning"),
        "logger": exp_logger,
        "gradient_clip_val": settings.grad_clip_val,
        "callbacks": [EndTogether(), *(callbacks if trained else [])],
        "enable_checkpointing": trained,
        **keep_float16(settings.trainer),
    }
    arguments["plugins"] = [checkpoint_io, *(arguments.get("plugins") or [])]
    trainer = Trainer(**arguments)
    with exit_on_sigterm():
        if trained:
            trainer.fit(predictor, datamodule=data.datamodule, ckpt_path=settings.ckpt_path)
            if checkpoint.best_model_path:
                best = read_checkpoint(checkpoint.best_model_path, "best_model_path")
                predictor.load_state_dict(best["state_dict"])

        predictor.freeze()
        (val,) = trainer.validate(predictor, datamodule=data.datamodule, verbose=False)
        test: Mapping[str, float] = {}
        if settings.score_test:
            (test,) = trainer.test(predictor, datamodule=data.datamodule, verbose=False)
        if settings.keep_forecasts is not None:
            parts = ("val", "test") if settings.score_test else ("val",)
            keep_forecasts(settings.keep_forecasts, predictor, data, parts)
    device = trainer.strategy.root_device
    resumed = settings.ckpt_path is not None
    marks = data.marks()
    progress: Any = trainer.fit_loop.epoch_progress
    record = {
        "run": state.run_id,
        **names,
        "label": settings.label,
        "seed": state.seed,
        "val": collect_errors(val, "val", marks),
        "test": collect_errors(test, "test", marks),
        "parameters": sum(parameter.numel() for parameter in predictor.model.parameters()),
        "seconds_per_epoch": statistics.median(timer.seconds) if timer.seconds else None,
        # Where a resumed run had been stopped early, Lightning's `current_epoch` is one too low.
        "epochs": progress.current.processed,
        # Of all threads; of a run that went on there is only the rest.
        "cpu_minutes": None if resumed else (time.process_time() - before) / 60,
        "peak_mib": peak_memory_mib(device),
        "forecasts": settings.keep_forecasts,
        "settings": settings.recorded(),
        **environment(device, command_line()),
    }
    return Outcome(record, predictor, data, checkpoint.best_model_path if trained else None)


def build_predictor(settings: Settings, data: ForecastingData) -> Any:
    """Return the Lightning module that trains and scores the model of a run on its data."""
    model, scheduler = settings.model, settings.lr_scheduler
    model_kwargs = data.model_kwargs()
    model.cls.filter_model_args_(model_kwargs)
    if model.trained:  # the others have had theirs
        model_kwargs.update(model.hparams)
    sources = PRESETS["state"]["k_neighbors"]
    if model_kwargs.get("k_neighbors") == sources:  # of the preset: all nodes where there are fewer
        model_kwargs["k_neighbors"] = min(sources, data.windows.n_nodes)
    edges = model_kwargs.get("candidates")
    if edges == "connectivity":  # the model restricts its own graph to that of the dataset
        model_kwargs["candidates"] = data.windows.edge_index
    elif edges is not None:
        raise ValueError(
            f"'model.hparams.candidates' must be connectivity or null (got {edges!r})."
        )
    predictor = share_loss(settings.engine.cls)(
        model_class=model.cls,
        model_kwargs=model_kwargs,
        optim_class=settings.optimizer.cls,
        optim_kwargs=dict(settings.optimizer.hparams),
        scheduler_class=None if scheduler is None else scheduler.cls,
        scheduler_kwargs=None if scheduler is None else dict(scheduler.hparams),
        loss_fn=settings.loss(),
        **settings.engine.hparams,
    )
    # torchmetrics merges for good the metrics that agree on the first batch; those of a batch
    # without a valid reading all agree on zero.
    scale = torch.from_numpy(data.naive_error())
    for split, marks in (("train", {}), ("val", data.marks()), ("test", data.marks())):
        found = build_metrics(marks)
        if split != "train":
            scaled = partial(_scaled_error, scale=scale)
            # A sensor without a scale has no part in it.
            found["mase"] = MaskedMetric(scaled, mask_nans=True, full_state_update=False)
        metrics = MetricCollection(found, prefix=f"{split}_", compute_groups=False)
        setattr(predictor, f"{split}_metrics", metrics)
    return predictor


def _scaled_error(y_hat: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    """Absolute errors ``[b horizon n f]`` in parts of the scale ``[n f]``."""
    return (y_hat - y).abs() / scale.to(y)


def build_metrics(marks: dict[str, int]) -> dict[str, Any]:
    """Return tsl's masked metrics over the horizon and at the given steps of it."""
    metrics = {}
    for name, metric in (("mae", MaskedMAE), ("mse", MaskedMSE), ("mape", MaskedMAPE)):
        metrics[metric_key(name)] = metric()
        for mark, step in marks.items():
            metrics[metric_key(name, mark)] = metric(at=step)
    return metrics


def build_logger(settings: Settings) -> Logger | bool:
    """Return the Lightning logger of a run; ``False`` for none."""
    options, name, folder = settings.logger, settings.run_name, settings.run_dir
    if options["backend"] == "none":
        return False
    tags = list(settings.tags)
    exp_logger: Logger
    if options["backend"] == "wandb":
        exp_logger = WandbLogger(
            name=name,
            save_dir=folder,
            project=options["project"],
            offline=options["offline"],
            tags=tags,
        )
    else:
        exp_logger = TensorBoardLogger(save_dir=folder, name=f"{name}_{'_'.join(tags)}")
    found = {"run": {**settings.config["run"], "dir": folder}, "ckpt_path": settings.ckpt_path}
    exp_logger.log_hyperparams({**settings.config, **found})
    return exp_logger
