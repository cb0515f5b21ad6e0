"""A search for settings: what it tries, that it goes on, that it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from types import SimpleNamespace

import pandas as pd
import pytest

optuna = pytest.importorskip("optuna", minversion="4.0")

from tsl_latentgnn import Forecaster  # noqa: E402
from tsl_latentgnn.__main__ import main  # noqa: E402
from tsl_latentgnn.forecaster import tuning  # noqa: E402
from tsl_latentgnn.forecaster.panel import read_panel  # noqa: E402
from tsl_latentgnn.forecaster.tuning import best_of, tune  # noqa: E402

from optuna.trial import TrialState  # noqa: E402
from pytorch_lightning import Callback  # noqa: E402
from small_forecaster import QUICK, small_table  # noqa: E402
from sqlalchemy.exc import IntegrityError  # noqa: E402


def small(**options):
    return Forecaster(horizon=3, **{**QUICK, **options})


def test_the_loss_of_a_trial_is_that_of_its_training_and_the_best_is_taken():
    table = small_table()
    study = tune(small(), table, trials=2)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert study.trials[0].params == {
        "k_neighbors": 3,
        "lr": 0.005,
        "dropout": 0.1,
        "latent_layers": 2,
    }
    losses = []

    class Note(Callback):
        def on_validation_end(self, trainer, pl_module):
            losses.append(float(trainer.callback_metrics["val_loss"]))

    for trial in study.trials:
        tried = best_of(small(trainer_kwargs={"callbacks": [Note()]}), study)
        kwargs = {key: trial.params[key] for key in ("dropout", "latent_layers")}
        tried.set_params(
            lr=trial.params["lr"],
            k_neighbors=trial.params["k_neighbors"],
            model_kwargs={"hidden_size": 8, **kwargs},
        ).fit(table)
    assert losses == pytest.approx([trial.value for trial in study.trials], rel=1e-5)
    best = best_of(small(), study)
    assert best.lr == study.trials[losses.index(min(losses))].params["lr"]
    assert best.model_kwargs["hidden_size"] == 8  # as it was given


def test_a_trial_trains_one_network_of_an_ensemble():
    studies = [tune(small(ensemble=number), small_table(), trials=1) for number in (1, 2)]
    assert studies[0].trials[0].value == studies[1].trials[0].value
    assert best_of(small(ensemble=2), studies[1]).ensemble == 2


def test_the_first_trial_is_the_default_and_all_settings_are_tried(monkeypatch):
    def fit(self, *_, **__):
        self.tried_ = pd.DataFrame({"val_loss": [1.0]})

    monkeypatch.setattr(Forecaster, "fit", fit)
    study = tune(Forecaster(horizon=12, verbose=False), small_table(sensors=20), trials=40)
    assert study.trials[0].params == {
        "window": 24,  # a day
        "hidden_size": 64,
        "k_neighbors": 8,
        "lr": 0.005,
        "dropout": 0.1,
        "latent_layers": 2,
    }
    tried = {key: {trial.params[key] for trial in study.trials} for key in study.trials[0].params}
    assert tried["window"] == {24, 48, 96}
    assert tried["hidden_size"] == {32, 64, 128}
    assert tried["k_neighbors"] == {4, 8, 16}
    assert tried["dropout"] == {0.0, 0.1, 0.2, 0.3}
    assert tried["latent_layers"] == {1, 2, 3}
    assert len(tried["lr"]) == 40
    assert all(0.001 <= lr <= 0.02 for lr in tried["lr"])
    # With 16 rows held out, a horizon of 12 and 8 windows, 131 rows leave 96 for the longest window.
    for rows, windows in ((131, {24, 48, 96}), (130, {24, 48})):
        study = tune(Forecaster(horizon=12, verbose=False), small_table(rows), trials=30)
        assert {trial.params["window"] for trial in study.trials} == windows


def test_a_trial_of_a_graph_that_is_to_be_read_trains_one_network(monkeypatch):
    searched, fit = small(preset="discovery"), Forecaster.fit
    tried = []

    def count(self, *args, **kwargs):
        fitted = fit(self, *args, **kwargs)
        tried.append(fitted.tried_)
        return fitted

    monkeypatch.setattr(Forecaster, "fit", count)
    study = tune(searched, small_table(), trials=2)
    assert [len(table) for table in tried] == [1, 1]
    first = study.trials[0].params
    assert (first["latent_layers"], first["gate"], first["k_neighbors"]) == (1, False, None)
    assert (first["lr"], first["dropout"], first["dense_epochs"]) == (0.005, 0.0, 0)
    assert study.trials[0].value == pytest.approx(tried[0].val_loss.iloc[0])
    best = best_of(searched, study)
    assert best.model_kwargs["gate"] in (False, True)
    assert best.dense_epochs == 0  # of one epoch
    panel = read_panel(small_table())
    for epochs, dense in ((4, [0]), (5, [0, 4]), (None, [0, 4])):
        searched.set_params(epochs=epochs)
        assert tuning._choices(searched, panel)["dense_epochs"] == dense


@pytest.mark.parametrize("storage", ["sqlite:///study.db", "study.log"])
def test_a_search_goes_on(storage, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table = small_table()
    tune(small(), table, trials=1, storage=storage)
    study = tune(small(verbose=True), table, trials=2, storage=storage)
    assert [trial.number for trial in study.trials] == [0, 1]
    said = capsys.readouterr().out
    assert said.startswith("Trial 1: ")
    assert said.count("\n") == 1
    assert len(tune(small(), table, trials=2, storage=storage).trials) == 2  # it has them
    with pytest.raises(ValueError, match=r"of the same readings and forecaster .*horizon=3, not 2"):
        tune(small().set_params(horizon=2), table, storage=storage)
    with pytest.raises(ValueError, match=r"of the same readings .*readings="):
        tune(small(), table + 1, storage=storage)


def test_two_processes_share_a_search(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small_table().rename_axis("time").to_csv("readings.csv")
    options = "--horizon 3 --window 12 --epochs 1 --batch-size 32 --k-neighbors 2 --accelerator cpu"
    arguments = [
        "tune",
        "readings.csv",
        *options.split(),
        "--trials",
        "8",
        "--storage",
        "study.log",
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "tsl_latentgnn", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        first = other.stdout.readline()
        main(arguments)
        theirs = [first, *other.stdout]
    assert other.returncode == 0
    ours = capsys.readouterr().out.splitlines()
    trials = [[line for line in lines if line.startswith("Trial ")] for lines in (ours, theirs)]
    assert all(trials)
    numbers = sorted(int(line.split()[1].strip(":")) for lines in trials for line in lines)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) in (8, 9)  # one more where both had one under way


def test_a_trial_whose_process_was_killed_is_tried_once_more(tmp_path):
    table, file = small_table(), tmp_path / "study.db"

    def search(trials):
        study = tune(small(), table, trials=trials, storage=f"sqlite:///{file}")
        return [trial.state for trial in study.trials], [trial.params for trial in study.trials]

    def ask(query):
        with contextlib.closing(sqlite3.connect(file, timeout=30)) as database, database:
            return database.execute(query).fetchone()

    def die(*_, **__):
        silent = (
            "SELECT 1 FROM trials WHERE trial_id NOT IN (SELECT trial_id FROM trial_heartbeats)"
        )
        while ask(silent):  # another thread gives the sign of life
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    def be_killed():
        pid = os.fork()
        if pid == 0:
            with pytest.MonkeyPatch.context() as patch, contextlib.suppress(BaseException):
                patch.setattr(Forecaster, "fit", die)
                search(9)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        ask("UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-6 minutes')")

    failed, complete = TrialState.FAIL, TrialState.COMPLETE
    be_killed()
    states, params = search(1)
    assert states == [failed, complete]
    assert params[0] == params[1]
    be_killed()
    be_killed()
    states, params = search(3)
    assert states == [failed, complete, failed, failed, complete]
    assert params[2] == params[3] != params[4]
    assert search(3) == (states, params)


def test_a_trial_that_is_under_way_is_left_alone(tmp_path):
    table, storage = small_table(), f"sqlite:///{tmp_path / 'study.db'}"
    states = []

    class Another(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            study = tune(small(), table, trials=1, storage=storage)
            states.extend(trial.state for trial in study.trials)

    tune(small(trainer_kwargs={"callbacks": [Another()]}), table, trials=2, storage=storage)
    assert states == [TrialState.RUNNING, TrialState.COMPLETE]


def test_the_command_trains_the_best(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small_table().rename_axis("time").to_csv("readings.csv")
    options = "--horizon 3 --window 12 --epochs 1 --batch-size 32 --accelerator cpu --trials 2 --out model"
    main(["tune", "readings.csv", *options.split()])
    said = capsys.readouterr().out
    assert "The best of 2 trials is " in said
    forecaster = Forecaster.load("model")
    assert (forecaster.horizon, forecaster.window) == (3, 12)
    assert set(forecaster.model_kwargs) == {"hidden_size", "dropout", "latent_layers"}


def test_a_trial_that_is_worse_is_ended(monkeypatch):
    epochs = []

    class Count(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            epochs.append(trainer.current_epoch)

    pruner = optuna.pruners.ThresholdPruner(upper=0.0)
    monkeypatch.setattr(tuning, "MedianPruner", lambda *_: pruner)
    study = tune(small(epochs=3, trainer_kwargs={"callbacks": [Count()]}), small_table(), trials=1)
    assert study.trials[0].state == TrialState.PRUNED
    assert list(study.trials[0].intermediate_values) == [0]
    assert max(epochs, default=0) == 0
    with pytest.raises(ValueError, match="'study' must have a trial that was completed"):
        best_of(small(), study)


def test_ctrl_c_ends_the_search():
    class Interrupt(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                raise KeyboardInterrupt

    forecaster = small(epochs=3, trainer_kwargs={"callbacks": [Interrupt()]})
    with pytest.raises(KeyboardInterrupt):
        tune(forecaster, small_table(), trials=3)


def test_a_training_that_diverges_is_a_failure_not_the_end():
    study = tune(small(lr=1e30), small_table(), trials=2)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * 2


@pytest.mark.parametrize(
    "storage", ["sqlite:////no/such/folder/study.db", "what://x", "/no/such/study.log"]
)
def test_a_storage_that_cannot_be_opened(storage):
    with pytest.raises(ValueError, match="'storage' must be a database") as error:
        tune(small(), small_table(), storage=storage)
    assert "\n" not in str(error.value)


def test_a_database_that_another_process_is_making(tmp_path, monkeypatch):
    found, waited = [IntegrityError("create", {}, ValueError("alembic_version"))] * 2, []

    def make(url, **options):
        if found:
            raise found.pop()
        return optuna.storages.RDBStorage(url, **options)

    monkeypatch.setattr(tuning, "RDBStorage", make)
    monkeypatch.setattr(tuning, "time", SimpleNamespace(sleep=waited.append))
    study = tune(small(), small_table(), trials=1, storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert (len(study.trials), waited) == (1, [1, 2])


def test_nothing_left_open():
    kwargs = {"hidden_size": 8, "dropout": 0.0, "latent_layers": 1}
    with pytest.raises(ValueError, match=r"'forecaster' must leave one of window, .* open"):
        tune(small(lr=0.01, k_neighbors=2, model_kwargs=kwargs), small_table())


def test_the_command_without_the_extra(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SystemExit):
        main(["tune", str(tmp_path / "readings.csv")])
    error = capsys.readouterr().err
    assert error.endswith(
        "optuna must be installed (got none): pip install 'tsl-latentgnn[tune]'\n"
    )
    assert error.count("\n") == 1
