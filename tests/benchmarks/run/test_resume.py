"""Runs that are killed and go on, and checkpoints that are broken, hostile or of another run."""

from __future__ import annotations

import copy
import errno
import fcntl
import io
import itertools
import json
import multiprocessing
import os
import random
import re
import runpy
import signal
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from tsl_latentgnn.engines import resume as training
from tsl_latentgnn.engines import run_checkpoints as checkpoints
from tsl_latentgnn.engines.checkpoint import read_checkpoint
from tsl_latentgnn.engines.resume import RunState, Stopping
from tsl_latentgnn.engines.run_checkpoints import BestCheckpoint, hold

import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from lightning_fabric.plugins.environments import SLURMEnvironment
from omegaconf import OmegaConf
from pytorch_lightning import Trainer

from benchmarks import forecasting
from benchmarks.forecasting import run
from benchmarks.report.records import append_record, read_records
from benchmarks.run import provenance
from benchmarks.run.resume import find_last, number_run

pytestmark = pytest.mark.tsl

ROOT = Path(__file__).parents[3]

#: A tiny model that draws random numbers in every way: order of the windows, dropout, teacher forcing.
TINY = (
    *("model=latentgnn", "window=4", "horizon=3", "epochs=30", "patience=2", "batch_size=16"),
    *(
        "model.hparams.hidden_size=8",
        "model.hparams.k_neighbors=3",
        "model.hparams.node_emb_size=4",
    ),
    *("model.hparams.decoder=attention", "model.hparams.dropout=0.3", "num_threads=1"),
    *("+engine.hparams.teacher_forcing_ratio=0.5", "+engine.hparams.teacher_forcing_decay=linear"),
    # Each epoch counts as a plateau: to miss one shows in the weights.
    "lr_scheduler={name: ReduceLROnPlateau, hparams: "
    "{monitor: val_mae, patience: 0, factor: 0.95, threshold: 0.99}}",
    *("+trainer.limit_train_batches=3", "+trainer.limit_val_batches=2"),
    *("+trainer.limit_test_batches=2", "+trainer.enable_progress_bar=false"),
    *("+trainer.enable_model_summary=false", "trainer.accelerator=cpu"),
)


# ------------------------------------------------------------------- processes that get killed


@pytest.fixture(scope="module")
def processes():
    """Start functions in processes of their own, forked from one that has done the imports."""
    context = multiprocessing.get_context("forkserver")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        context.set_forkserver_preload(
            ["benchmarks.forecasting", "tsl_latentgnn.models", "tsl.datasets", "torchmetrics"]
        )
        context.Process(target=os.getpid).start()  # starts the server, with this environment
    return context


@pytest.fixture
def start(processes, gpvar_dir):
    """Run the command line in a folder, with an event on the way; returns the exit code and what was printed."""

    def start(folder, *arguments, event=None, code=0):
        folder.mkdir(exist_ok=True)
        process = processes.Process(
            target=command, args=(folder, (*TINY, f"data_dir={gpvar_dir}", *arguments), event)
        )
        process.start()
        process.join(100)
        printed = (folder / "printed.txt").read_text()
        assert process.exitcode == code, printed[-4000:]
        return printed

    return start


def command(folder, arguments, event):
    os.chdir(folder)
    printed = os.open("printed.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    sys.argv = ["benchmarks.forecasting", *arguments]
    if event is not None:
        name, *details = event
        EVENTS[name](*details)
    forecasting.main()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def after(count, function, action):
    """A function that calls ``action`` after its ``count``-th call of ``function``."""
    calls = itertools.count(1)

    def call(*args, **kwargs):
        result = function(*args, **kwargs)
        if next(calls) == count:
            action()
        return result

    return call


def at_each_call(action):
    """Call ``action`` at each call of any function, Python's or C's, from the start of the training on."""
    fit = Trainer.fit

    def watched_fit(*args, **kwargs):
        sys.setprofile(lambda frame, event, _: action() if event in ("call", "c_call") else None)
        return fit(*args, **kwargs)

    Trainer.fit = watched_fit


def kill_at_call(number):
    """At a call, counted from the start of the training: anywhere."""
    calls = itertools.count(1)
    at_each_call(lambda: die() if next(calls) == number else None)


def count_calls():
    """No kill: count the calls."""
    calls = itertools.count(1)
    at_each_call(calls.__next__)
    main = forecasting.main

    def counted_main():
        main()
        sys.setprofile(None)
        Path("calls.txt").write_text(str(next(calls)))

    forecasting.main = counted_main


def kill_in_write(number):
    """With half of a checkpoint written."""
    save = torch.save
    written = []

    def torn(checkpoint, file):
        written.append(None)
        if len(written) < number:
            return save(checkpoint, file)
        whole = io.BytesIO()
        save(checkpoint, whole)
        file.write(whole.getvalue()[: whole.tell() // 2])
        file.flush()
        os.fsync(file.fileno())
        return die()

    torch.save = torn


def kill_before_last(number):
    """With a new best checkpoint in place, and ``last.ckpt`` still that of the epoch before."""
    save = checkpoints.RunCheckpointIO.save_checkpoint
    written = []

    def dying_save(self, checkpoint, path, *args, **kwargs):
        written.extend([path] if Path(path).name == "last.ckpt" else [])
        return die() if len(written) == number else save(self, checkpoint, path, *args, **kwargs)

    checkpoints.RunCheckpointIO.save_checkpoint = dying_save


def kill_after_append():
    """With the result written."""
    forecasting.append_record = after(1, append_record, die)


def terminate_in_batch(number):
    """SIGTERM, in a batch of the training."""
    term = partial(os.kill, os.getpid(), signal.SIGTERM)
    RunState.on_train_batch_start = after(number, lambda *args: None, term)


def signal_in_slurm(number, name):
    """As Slurm does it, in a batch of the training or of the test, with its variables set."""
    os.environ.update(SLURM_NTASKS="1", SLURM_JOB_ID="1", SLURM_JOB_NAME="x", SLURM_NODELIST="n")
    os.environ.update(SLURM_NODEID="0", SLURM_PROCID="0", SLURM_LOCALID="0")
    hook = f"on_{name}_batch_start"
    end = partial(os.kill, os.getpid(), signal.SIGUSR1)
    setattr(RunState, hook, after(number, lambda *args: None, end))


EVENTS = {
    "count": count_calls,
    "call": kill_at_call,
    "write": kill_in_write,
    "last": kill_before_last,
    "append": kill_after_append,
    "term": terminate_in_batch,
    "slurm": signal_in_slurm,
}


def find_checkpoints(folder):
    """The checkpoints under a folder: the last one, and the best one."""
    paths = [path for path in folder.rglob("*") if ".ckpt" in path.name]
    last = [path for path in paths if path.name == "last.ckpt"]
    best = [path for path in paths if path.name != "last.ckpt"]
    assert (len(last), len(best)) == (1, 1), paths  # one run, one folder, and nothing left over
    return last[0], best[0]


def assert_same(one, other, where="checkpoint"):
    """Equality bit for bit."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape) == (other.dtype, other.shape), where
        assert one.numpy().tobytes() == other.numpy().tobytes(), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}/{index}")
    else:
        assert one == other, where


def best_state(checkpoint):
    """The state of the callback that knows the best checkpoint."""
    (state,) = [s for n, s in checkpoint["callbacks"].items() if n.startswith("BestCheckpoint")]
    return state


def comparable(path):
    """What a checkpoint holds, without what tells runs apart: paths, times and the name of the run."""
    checkpoint = read_checkpoint(path, "ckpt_path")
    callbacks = checkpoint["callbacks"]
    del callbacks["EpochTimer"], callbacks["MinutesCap"], callbacks["RunState"]["run_id"]
    best = best_state(checkpoint)
    best["best_model_path"] = Path(best["best_model_path"]).name
    for key in ("dirpath", "best_k_models", "kth_best_model_path", "last_model_path"):
        del best[key]
    del best["current_score"]  # of the last new best, which a resumed run need not see
    return checkpoint


def read(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_been(start, tmp_path):
    start(tmp_path / "whole", event=("count",))
    (whole,) = read(tmp_path / "whole")
    assert 12 <= whole["epochs"] < 30  # stopped early

    calls = int((tmp_path / "whole" / "calls.txt").read_text())
    draw = random.Random(0)
    anywhere = [("call", draw.randrange(calls // 8)) for _ in range(3)]
    ends = [("last", 3), ("slurm", 5, "train"), anywhere[0], ("write", 4), *anywhere[1:]]
    ends += [("slurm", 1, "test"), ("append",)]
    folder = tmp_path / "killed"
    for event in ends:
        start(
            folder,
            "ckpt_path=last",
            event=event,
            code=143 if event[0] == "slurm" else -signal.SIGKILL,
        )
        last = read_checkpoint(*folder.rglob("last.ckpt"), "ckpt_path")
        assert os.path.isfile(best_state(last)["best_model_path"])
        if event[0] == "write":  # the torn one is not the one to go on from
            assert len(list(folder.rglob("*.ckpt.tmp"))) == 1
            assert last["epoch"] > 0
    (before,) = read(folder)
    printed = start(folder, "ckpt_path=last")
    assert "The result of this run is in results.jsonl already." in printed

    (killed,) = read(folder)
    assert killed == before
    for key in ("val", "test", "epochs", "seed", "parameters", "settings"):
        assert killed[key] == whole[key]
    pairs = zip(find_checkpoints(tmp_path / "whole"), find_checkpoints(folder), strict=True)
    for one, other in pairs:
        assert one.name == other.name
        assert_same(comparable(one), comparable(other))
    timers = [
        read_checkpoint(find_checkpoints(path)[0], "ckpt_path")["callbacks"]["EpochTimer"][
            "seconds"
        ]
        for path in (tmp_path / "whole", folder)
    ]
    assert [len(seconds) for seconds in timers] == [whole["epochs"]] * 2

    # What was stopped early goes on with more patience, and its result is another one.
    start(folder, "ckpt_path=last", "patience=20", f"epochs={whole['epochs'] + 1}")
    longer = read(folder)
    assert longer[0] == killed
    assert [record["epochs"] for record in longer] == [whole["epochs"], whole["epochs"] + 1]
    assert longer[1]["run"] == killed["run"]


def test_a_run_that_ends_in_the_midst_of_an_epoch_goes_on_too(start, tmp_path):
    """Then there is no validation, and the metrics of the epoch before stand."""
    start(tmp_path / "whole", "+trainer.max_steps=8")
    folder = tmp_path / "killed"
    start(folder, "+trainer.max_steps=8", event=("term", 8), code=143)
    start(folder, "+trainer.max_steps=8", "ckpt_path=last")
    (whole,), (killed,) = read(tmp_path / "whole"), read(folder)
    assert {key: killed[key] for key in ("val", "test", "epochs")} == {
        key: whole[key] for key in ("val", "test", "epochs")
    }
    pairs = zip(find_checkpoints(tmp_path / "whole"), find_checkpoints(folder), strict=True)
    for one, other in pairs:
        assert_same(comparable(one), comparable(other))


def test_what_lightning_left_in_the_folder_is_not_loaded(ar, trained, tmp_path, monkeypatch):
    """Under Slurm it would load it unasked, before the training and before each test."""
    torch.manual_seed(0)
    expected = run(ar())
    (tmp_path / "run" / "last.ckpt").unlink()
    other = torch.load(trained, weights_only=True)
    other["state_dict"] = {name: 0 * value for name, value in other["state_dict"].items()}
    torch.save(other, tmp_path / "run" / "hpc_ckpt_1.ckpt")
    for name, value in {"NTASKS": 1, "JOB_ID": 1, "JOB_NAME": "x", "NODELIST": "n"}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    for name in ("NODEID", "PROCID", "LOCALID"):
        monkeypatch.setenv(f"SLURM_{name}", "0")
    assert SLURMEnvironment.detect()
    torch.manual_seed(0)
    found = run(ar("label=again"))
    assert (found["val"], found["test"]) == (expected["val"], expected["test"])


def crowd(path, number):
    for seed in range(10):
        append_record(path, make_record(number, seed))
        append_record(path, make_record(number, seed))


def make_record(number, seed):
    errors = {"mae": 1.0, "rmse": 1.0, "mape": 1.0, "at": {}}
    record = {"run": f"{number}", "dataset": "la", "model": "rnn", "seed": seed, "parameters": 1}
    # Longer than a page, so that lines of several writers would be torn if they could be.
    return {**record, "label": f"{number}" * 5000, "val": errors, "test": errors, "settings": {}}


def test_processes_share_a_file_of_results(processes, tmp_path):
    path = tmp_path / "results.jsonl"
    writers = [processes.Process(target=crowd, args=(path, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    found = sorted((record["run"], record["seed"]) for record in read_records([path]))
    assert found == [(str(number), seed) for number in range(4) for seed in range(10)]


def announce_and_append(path, ready):
    ready.set()
    append_record(path, make_record(1, 1))


def test_a_result_waits_for_its_turn(processes, tmp_path):
    path = tmp_path / "results.jsonl"
    ready = processes.Event()
    writer = processes.Process(target=announce_and_append, args=(path, ready))
    with path.open("a") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        writer.start()
        assert ready.wait(60)
        writer.join(0.3)
        assert path.stat().st_size == 0
    writer.join(60)
    assert list(read_records([path])) == [make_record(1, 1)]


def hold_and_wait(folder, held):
    with hold(folder):
        held.set()
        signal.pause()


def test_a_folder_is_for_one_process_until_it_is_killed(processes, tmp_path):
    held = processes.Event()
    process = processes.Process(target=hold_and_wait, args=(tmp_path / "run", held))
    process.start()
    assert held.wait(60)
    with pytest.raises(ValueError, match=r"'hydra.run.dir' must be .* another process is at work"):
        hold(tmp_path / "run", "hydra.run.dir").__enter__()
    process.kill()
    process.join(60)
    with hold(tmp_path / "run"), hold(tmp_path / "other"):
        pass


# ------------------------------------------------------------------------------------- results


def test_a_result_is_written_once(tmp_path):
    path = tmp_path / "results.jsonl"
    record = make_record(1, 2)
    assert append_record(path, record)
    assert not append_record(path, {**record, "time": "later", "parameters": 7})
    changes = [{"run": "9"}, {"label": "b"}, {"seed": 3}, {"settings": {"epochs": 2}}]
    for change in changes:
        assert append_record(path, {**record, **change})
        assert not append_record(path, {**record, **change})
    nameless = {key: value for key, value in record.items() if key != "run"}
    assert append_record(path, nameless)
    assert append_record(path, nameless)
    assert len(list(read_records([path]))) == 1 + len(changes) + 2


@pytest.mark.parametrize("complete", [True, False])
def test_a_line_that_was_cut_short_does_not_spoil_the_next(tmp_path, complete):
    path = tmp_path / "results.jsonl"
    first, second, third = (make_record(number, 0) for number in range(3))
    append_record(path, first)
    tail = json.dumps(second)
    with path.open("a") as file:
        file.write(tail if complete else tail[:-1])
    append_record(path, third)
    assert list(read_records([path])) == [first, *([second] if complete else []), third]


@pytest.mark.parametrize("content", ["a note", "a,b\n1,2", '{\n  "a": 1', "[1]\n", "# x\n{}"])
def test_a_file_of_somebody_else_is_refused_first_and_loses_nothing(ar, tmp_path, content):
    path = tmp_path / "results.jsonl"
    path.write_text(content)
    with pytest.raises(
        ValueError, match=r"'results_file' must be a file of results, .*results.jsonl"
    ):
        run(ar())
    assert not (tmp_path / "run").exists()  # no time was spent
    append_record(path, make_record(1, 0))
    assert path.read_text().startswith(content.rstrip("\n") + "\n{")


def test_results_are_written_where_there_are_no_locks_as_on_windows(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "resource", None)
    place = Path(sys.modules[append_record.__module__].__file__)
    module = runpy.run_path(str(place))
    assert module["fcntl"] is None
    for number in (1, 2):
        assert module["append_record"](tmp_path / "results.jsonl", make_record(number, 0))
    assert len(list(read_records([tmp_path / "results.jsonl"]))) == 2
    memory = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=3 * 2**20))
    monkeypatch.setattr("psutil.Process", lambda: memory)
    assert provenance.peak_memory_mib(torch.device("cpu")) == 3.0


def test_a_short_write_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "results.jsonl"
    append_record(path, make_record(1, 0))
    before = path.read_bytes()
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: write(file, data[:5]))
        with pytest.raises(OSError, match="only 5 of"):
            append_record(path, make_record(2, 0))
    assert path.read_bytes() == before


# ---------------------------------------------------------------------------------- checkpoints


@pytest.fixture
def ar(make_settings, quick, gpvar_dir):
    """Configurations of a model that trains in no time."""
    return partial(make_settings, *quick, model="ar", data_dir=gpvar_dir)


@pytest.fixture
def trained(ar, tmp_path):
    """The last checkpoint of a run; what follows it goes to another folder."""
    run(ar())
    return (tmp_path / "run").rename(tmp_path / "before") / "last.ckpt"


class Payload:
    """Calls ``function(*arguments)`` when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("place", ["hyper_parameters", "callbacks", "loops", "best_model_path"])
def test_a_checkpoint_that_carries_code_is_refused_and_the_code_does_not_run(
    ar, trained, tmp_path, place
):
    mark = tmp_path / "ran"
    checkpoint = torch.load(trained, weights_only=True)
    hostile = tmp_path / "hostile.ckpt"
    if place == "best_model_path":  # in the file to which a harmless one leads
        best_state(checkpoint).update(
            best_model_path=str(hostile), best_model_score=torch.tensor(0.0)
        )
        torch.save(checkpoint, tmp_path / "harmless.ckpt")
        given = tmp_path / "harmless.ckpt"
        checkpoint["loops"]["more"] = Payload(os.mkdir, str(mark))
    else:
        given = hostile
        checkpoint[place]["more"] = Payload(os.mkdir, str(mark))
    torch.save(checkpoint, hostile)

    key = place if place == "best_model_path" else "ckpt_path"
    message = f"'{key}' must be a checkpoint that holds nothing but data .*hostile.ckpt"
    with pytest.raises(ValueError, match=message):
        run(ar("epochs=2", ckpt_path=given))
    assert not mark.exists()
    torch.load(hostile, weights_only=False)  # the payload is live: only the safety held it
    assert mark.exists()


def test_a_checkpoint_names_no_file_that_is_removed_elsewhere(ar, trained, tmp_path):
    precious = tmp_path / "precious.ckpt"
    precious.write_text("data")
    checkpoint = torch.load(trained, weights_only=True)
    best = best_state(checkpoint)
    path = str(tmp_path / "run" / ".." / "precious.ckpt")
    best.update(best_model_path=path, best_model_score=torch.tensor(1e9), last_model_path=path)
    best.update(best_k_models={path: torch.tensor(1e9)}, kth_best_model_path=path)
    torch.save(checkpoint, tmp_path / "hostile.ckpt")
    (tmp_path / "run").mkdir()
    record = run(ar("epochs=2", ckpt_path=tmp_path / "hostile.ckpt"))
    assert record["epochs"] == 2
    assert find_checkpoints(tmp_path / "run")[1].name.startswith("epoch1-")  # it was a new best
    assert precious.read_text() == "data"


def test_a_checkpoint_that_is_cut_short_is_refused(ar, trained, tmp_path):
    whole = trained.read_bytes()
    path = tmp_path / "torn.ckpt"
    lengths = [0, 1, 100, *np.linspace(200, len(whole) - 1, 20).astype(int).tolist()]
    for length in lengths:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"'ckpt_path' must be a .*checkpoint .*torn.ckpt"):
            read_checkpoint(path, "ckpt_path")
    path.write_bytes(whole[: len(whole) // 2])
    message = "'ckpt_path' must be a whole checkpoint .*torn.ckpt.* train from the start with ckpt_path=null"
    with pytest.raises(ValueError, match=message):
        run(ar(ckpt_path=path))
    path.write_text("epoch,loss\n1,0.5\n")
    with pytest.raises(ValueError, match="'ckpt_path' must be a whole checkpoint"):
        run(ar(ckpt_path=path))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model": "rnn"}, "model is 'ar', not 'rnn'"),
        (
            {"dataset": "la", "horizon": 1, "window": 4},
            "dataset is 'gpvar', not 'la'; n_nodes is 30, not 10",
        ),
        ({"horizon": 2}, r"horizon is 1, not 2\)"),
        ({"window": 5}, r"window is 4, not 5\)"),
        ({"optimizer.name": "SGD"}, r"optimizer.name is 'Adam', not 'SGD'\)"),
        ({"optimizer.hparams.lr": "0.5"}, r"optimizer.hparams.lr is [0-9.]+, not 0.5\)"),
        ({"loss": "mse"}, r"loss is 'mae', not 'mse'\)"),
        ({"batch_size": 32}, r"batch_size is \d+, not 32\)"),
        ({"dataset.scaler": "robust"}, r"dataset.scaler is 'standard', not 'robust'\)"),
        (
            {"lr_scheduler": "{name: ConstantLR}"},
            r".*lr_scheduler.name is absent, not 'ConstantLR'.*",
        ),
        ({"+model.hparams.bias": "false"}, r"bias is absent, not False\)"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(ar, la_dir, trained, overrides, message):
    if "dataset" in overrides:
        overrides = {**overrides, "data_dir": la_dir}
    where = "'ckpt_path' must be a checkpoint of the run that goes on .*last.ckpt', in which "
    with pytest.raises(ValueError, match=f"{where}{message}.*config.yaml in its folder"):
        run(ar(ckpt_path=trained, **overrides))


def test_a_run_that_is_older_than_a_setting_goes_on(ar, trained, tmp_path):
    checkpoint = torch.load(trained, weights_only=True)
    del checkpoint["callbacks"]["RunState"]["about"]["dataset.profile"]
    folder = tmp_path / "logs" / "old"
    folder.mkdir(parents=True)
    torch.save(checkpoint, folder / "last.ckpt")
    config = copy.deepcopy(ar().config)
    del config["dataset"]["profile"]
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
    more = f"run_root={tmp_path / 'logs'}", "epochs=2", "ckpt_path=last"
    record = run(ar(*more))
    assert record["epochs"] == 2
    assert record["seconds_per_epoch"] > 0
    assert record["cpu_minutes"] is None  # of both epochs it does not know them
    checkpoint["callbacks"]["RunState"]["about"]["dataset.scaler"] = "robust"
    torch.save(checkpoint, folder / "last.ckpt")
    with pytest.raises(ValueError, match=r"in which dataset\.scaler is 'robust', not 'standard'"):
        run(ar(*more))


def test_weights_that_do_not_fit_are_named(ar, trained, tmp_path):
    # As of a checkpoint that does not say what it is about.
    checkpoint = torch.load(trained, weights_only=True)
    del checkpoint["callbacks"]["RunState"]
    name = next(iter(checkpoint["state_dict"]))
    shape = tuple(checkpoint["state_dict"][name].shape)
    checkpoint["state_dict"][name] = torch.zeros(2, 3, 4)
    torch.save(checkpoint, tmp_path / "other.ckpt")
    message = f"in which {name} is (2, 3, 4), not {shape})"
    with pytest.raises(ValueError, match=re.escape(message)):
        run(ar(ckpt_path=tmp_path / "other.ckpt"))


@pytest.mark.parametrize(
    ("content", "lacks"),
    [
        ({"state_dict": {}}, "optimizer_states, lr_schedulers, loops, callbacks, hyper_parameters"),
        ([1], "state_dict, optimizer_states"),
        (torch.zeros(3), "state_dict, optimizer_states"),
        (None, "loops"),
    ],
)
def test_a_foreign_checkpoint_is_refused(ar, trained, tmp_path, content, lacks):
    if content is None:
        content = {**torch.load(trained, weights_only=True), "loops": {}}
    torch.save(content, tmp_path / "foreign.ckpt")
    message = rf"'ckpt_path' must be a checkpoint of a training \(got .*, which lacks {lacks}"
    with pytest.raises(ValueError, match=message):
        run(ar(ckpt_path=tmp_path / "foreign.ckpt"))


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    writer = checkpoints.RunCheckpointIO(lambda *_: None)
    path = tmp_path / "run" / "last.ckpt"
    writer.save_checkpoint({"epoch": 1}, path)

    def full(checkpoint, file):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        writer.save_checkpoint({"epoch": 2}, path)
    assert writer.load_checkpoint(path) == {"epoch": 1}
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


# --------------------------------------------------------------------------------- what goes on


def test_last_is_the_newest_of_the_same_run(ar, tmp_path):
    def leave(name, age, *overrides):
        folder = tmp_path / "logs" / "any" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(ar(*overrides).config))
        (folder / "last.ckpt").touch()
        os.utime(folder / "last.ckpt", (1e9 - age, 1e9 - age))
        return str(folder / "last.ckpt")

    root = f"run_root={tmp_path / 'logs'}"
    with pytest.warns(UserWarning, match="there is no checkpoint of this run under"):
        assert find_last(ar(root)) is None
    leave("older", 9)
    newer = leave("newer", 8, "patience=3", "epochs=7", root)
    others = ["seed=1", "label=b", "window=5", "optimizer.hparams.lr=1e-5", "batch_size=8"]
    for number, override in enumerate(others):
        leave(f"other{number}", 7, override)
    (tmp_path / "logs" / "torn").mkdir()
    (tmp_path / "logs" / "torn" / "last.ckpt").touch()
    (tmp_path / "logs" / "torn" / "config.yaml").write_text("seed: [")
    assert find_last(ar(root)) == newer
    assert find_last(ar(root, "optimizer.hparams.lr=0.00001")).split("/")[-2] == "other3"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.ckpt").touch()
    assert find_last(ar(root)) == str(tmp_path / "run" / "last.ckpt")


def test_the_last_run_is_the_last_that_began_whatever_the_clock_said(ar, tmp_path):
    root = f"run_root={tmp_path / 'logs'}"
    for number, name in enumerate(["first", "second", "third"]):
        folder = tmp_path / "logs" / name
        folder.mkdir(parents=True)
        settings = ar(root) if name != "third" else ar(root, "seed=7")
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(settings.config))
        (folder / "last.ckpt").touch()
        number_run(str(folder), str(tmp_path / "logs"))
        os.utime(folder / "last.ckpt", (1e9 - number, 1e9 - number))  # the clock was set back
        assert (folder / ".number").read_text() == str(number + 1)
    number_run(str(tmp_path / "logs" / "first"), str(tmp_path / "logs"))  # it goes on
    assert (tmp_path / "logs" / "first" / ".number").read_text() == "1"
    assert Path(find_last(ar(root))).parent.name == "second"
    dated = ar(root, "label='2026-01-01'", "optimizer.hparams.lr=1e-5")
    (tmp_path / "logs" / "third" / "config.yaml").write_text(OmegaConf.to_yaml(dated.config))
    assert Path(find_last(dated)).parent.name == "third"


def test_a_checkpoint_can_be_named_on_the_command_line(ar, trained):
    _, best = find_checkpoints(trained.parent)
    (override,) = OverridesParser.create().parse_overrides([f"ckpt_path={best}"])
    assert override.value() == str(best)


def test_a_full_disk_is_said_in_one_line(make_cfg, quick, gpvar_dir, monkeypatch):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "last.ckpt")
    monkeypatch.setattr(torch, "save", raising(full))
    with pytest.raises(
        SystemExit, match=r"^No space left on the disk of \S+: .* goes on after.*\.$"
    ):
        forecasting.objective(make_cfg(*quick, model="ar", data_dir=gpvar_dir))
    other = OSError(errno.EIO, os.strerror(errno.EIO))
    monkeypatch.setattr(torch, "save", raising(other))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        forecasting.objective(make_cfg(*quick, model="ar", data_dir=gpvar_dir))


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


def test_a_model_with_a_graph_among_its_arguments_goes_on(make_settings, gpvar_dir, tmp_path):
    overrides = [text for text in TINY if not text.startswith(("epochs", "model="))]
    overrides += ["model=latentgnn", "+model.hparams.candidates=connectivity"]
    settings = partial(make_settings, *overrides, data_dir=gpvar_dir)
    assert run(settings(epochs=1))["epochs"] == 1
    assert run(settings(epochs=2, ckpt_path="last"))["epochs"] == 2
    (tmp_path / "run").rename(tmp_path / "before")
    path = tmp_path / "before" / "last.ckpt"
    checkpoint = read_checkpoint(path, "ckpt_path")
    edges = checkpoint["hyper_parameters"]["model_kwargs"]["candidates"]
    checkpoint["hyper_parameters"]["model_kwargs"]["candidates"] = edges[:, 1:]
    torch.save(checkpoint, path)
    message = "candidates is a tensor of shape .*, not a tensor of shape "
    with pytest.raises(ValueError, match=message):
        run(settings(epochs=3, ckpt_path=path))


def test_random_states_survive_a_checkpoint(tmp_path):
    def draw():
        return [random.random(), *np.random.normal(size=3), *torch.rand(3).tolist()]

    np.random.normal()  # one of a pair: the other one is part of the state
    torch.save(training.random_states(), tmp_path / "states.ckpt")
    expected = draw()
    assert draw() != expected
    training.set_random_states(torch.load(tmp_path / "states.ckpt", weights_only=True))
    assert draw() == expected


def test_a_best_checkpoint_is_found_where_its_folder_was_moved_to(tmp_path):
    state = BestCheckpoint(tmp_path / "old").state_dict()
    state.update(best_model_path=str(tmp_path / "old" / "epoch=1.ckpt"))
    state.update(best_model_score=torch.tensor(1.0), last_model_path=str(tmp_path / "old" / "x"))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "epoch=1.ckpt").touch()
    callback = BestCheckpoint(tmp_path / "new")
    callback.load_state_dict(state)
    path = str(tmp_path / "new" / "epoch=1.ckpt")
    assert (callback.best_model_path, callback.kth_best_model_path) == (path, path)
    assert callback.best_k_models == {path: torch.tensor(1.0)}
    assert callback.last_model_path == ""


@pytest.mark.parametrize(
    ("waited", "stopped", "patience", "expected"),
    [(2, True, 3, False), (3, True, 3, True), (3, True, 4, False), (1, True, 9, True)],
)
def test_what_stopped_a_run_stops_it_again(waited, stopped, patience, expected):
    # The last case: not for want of patience, but because the error was no number.
    first = Stopping(monitor="val_mae", patience=3)
    first.wait_count, first.stopped = waited, stopped and waited != 2
    second = Stopping(monitor="val_mae", patience=patience)
    second.load_state_dict(first.state_dict())
    trainer = SimpleNamespace(should_stop=None)
    second.on_fit_start(trainer, None)
    assert trainer.should_stop is expected
    assert (second.patience, second.wait_count) == (patience, waited)
