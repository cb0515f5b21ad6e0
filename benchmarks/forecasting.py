"""Train a model on a dataset, score it, note the result.

``python -m benchmarks forecasting model=gwnet dataset=la`` takes Hydra overrides of
``config/default.yaml``; ``-m`` sweeps. The protocol is that of tsl's traffic example: masked MAE as
loss (by default), early stopping on the validation MAE, the best checkpoint is tested. A run that was ended,
however, goes on with ``ckpt_path=last``, and ends as if nothing had been.
"""

from __future__ import annotations

import errno
import math
import sys
from typing import Any

from omegaconf import DictConfig
from pytorch_lightning.utilities import rank_zero_only
from tsl.experiment import Experiment

from benchmarks.report.records import append_record, check_results_file, describe
from benchmarks.run.experiment import fit_and_score
from benchmarks.run.launch import is_first_process
from benchmarks.settings import CONFIG_DIR, Settings

#: For Hydra in the other processes of a run: no folder and no log.
_QUIET = ("hydra.run.dir=.", "hydra/job_logging=disabled", "hydra/hydra_logging=disabled")


def run(settings: Settings) -> dict[str, Any]:
    """Run one experiment, append its result to the results file and print it as a table.

    Returns:
        dict: The result as written.

    Raises:
        ValueError: If a value does not fit; the message names the key.
    """
    check_results_file(settings.results_file)
    record = fit_and_score(settings).record
    _publish(settings.results_file, record)
    return record


@rank_zero_only
def _publish(path: str, record: dict[str, Any]) -> None:
    if not append_record(path, record):
        print(f"The result of this run is in {path} already.")
    print(describe(record))


class _Experiment(Experiment):
    """tsl's, of which only the first process of a run writes."""

    log_config = rank_zero_only(Experiment.log_config)


def objective(cfg: DictConfig) -> float:
    """Run one experiment, and return its validation MAE, which a sweeper may minimize.

    Args:
        cfg: See :meth:`benchmarks.settings.Settings.resolve`.

    Returns:
        float: The validation MAE; infinite where the model forecasts what is no number.
    """
    settings = Settings.resolve(cfg)
    try:
        mae = run(settings)["val"]["mae"]
    except OSError as error:
        if error.errno not in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
            raise
        # Hydra's hint at a stack trace would come last.
        advice = "Make room; ckpt_path=last goes on after the last finished epoch."
        place = error.filename or settings.run_dir
        raise SystemExit(
            f"No space left on the disk of {place}: {error.strerror}. {advice}"
        ) from None
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
