from __future__ import annotations

import importlib.metadata
import itertools
import json
import math
import multiprocessing as mp
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

from tsl_latentgnn import _native, _tsl
from tsl_latentgnn._tsl import allow_in_checkpoints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*have no logger configured"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint"),
]

REDUCTIONS = {
    "sum": math.fsum,
    "add": math.fsum,
    "mul": math.prod,
    "mean": lambda values: math.fsum(values) / len(values),
    "min": min,
    "max": max,
}
SEGMENT_REDUCTIONS = [reduce for reduce in REDUCTIONS if reduce != "mul"]


def is_installed(distribution):
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def naive_scatter(src, index, dim, size, reduce):
    """Collect the values of each group in a list, one position after the other."""
    shape = list(src.shape)
    shape[dim] = size
    out = torch.full(shape, 1.0 if reduce == "mul" else 0.0, dtype=torch.float64)
    groups = {}
    for position in itertools.product(*map(range, src.shape)):
        target = list(position)
        target[dim] = int(index[position])
        groups.setdefault(tuple(target), []).append(float(src[position]))
    for target, values in groups.items():
        out[target] = REDUCTIONS[reduce](values)
    return out


def naive_segment(src, indptr, dim, reduce):
    """Slice each range out of each row; ``indptr`` has the dimensions of ``src`` up to ``dim``."""
    shape = list(src.shape)
    shape[dim] = indptr.size(dim) - 1
    out = torch.zeros(shape, dtype=torch.float64)
    for target in itertools.product(*map(range, shape)):
        lead, i, tail = target[:dim], target[dim], target[dim + 1 :]
        start, end = int(indptr[(*lead, i)]), int(indptr[(*lead, i + 1)])
        values = [float(src[(*lead, position, *tail)]) for position in range(start, end)]
        if values:
            out[target] = REDUCTIONS[reduce](values)
    return out


def borders(generator, lead, length, segments):
    """Random ascending pointers from 0 to ``length``."""
    inner = torch.randint(0, length + 1, (*lead, segments - 1), generator=generator)
    first = torch.zeros(*lead, 1, dtype=torch.long)
    return torch.cat([first, inner.sort(-1).values, first + length], dim=-1)


shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3)
seeds = st.integers(0, 2**31 - 1)
few = settings(max_examples=25, deadline=None)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@few
@given(shape=shapes, seed=seeds, data=st.data())
def test_scatter_matches_python_loops(reduce, shape, seed, data):
    generator = torch.Generator().manual_seed(seed)
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    size = data.draw(st.integers(1, 5))
    src = torch.randn(shape, generator=generator, dtype=torch.float64)
    index = torch.randint(0, size, shape, generator=generator)

    out = _native.scatter(src, index, dim, dim_size=size, reduce=reduce)
    torch.testing.assert_close(out, naive_scatter(src, index, dim, size, reduce))

    minimal = _native.scatter(src, index, dim, reduce=reduce)
    expected = naive_scatter(src, index, dim, int(index.max()) + 1, reduce)
    torch.testing.assert_close(minimal, expected)


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_scatter_broadcasts_a_flat_index(reduce, dim):
    src = torch.randn(3, 4, 5, dtype=torch.float64)
    flat = torch.tensor([2, 0, 2, 0, 3])[: src.size(dim)]
    full = torch.empty(3, 4, 5, dtype=torch.long)
    full.movedim(dim, -1)[:] = flat
    out = _native.scatter(src, flat, dim, dim_size=6, reduce=reduce)
    torch.testing.assert_close(out, naive_scatter(src, full, dim, 6, reduce))


@pytest.mark.parametrize(
    ("reduce", "expected"),
    [
        ("sum", [10 + 3.0, 20, 30 + 3.0]),
        ("add", [10 + 3.0, 20, 30 + 3.0]),
        ("mul", [10 * 2.0, 20, 30 * 3.0]),
        ("mean", [(10 + 3.0) / 2, 20, 30 + 3.0]),
        ("min", [1.0, 20, 3.0]),
        ("max", [10.0, 20, 30.0]),
    ],
)
def test_scatter_reduces_into_out(reduce, expected):
    out = torch.tensor([10.0, 20.0, 30.0])
    src, index = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 0, 2])
    result = _native.scatter(src, index, 0, out=out, reduce=reduce)
    assert result is out
    assert out.tolist() == expected


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_scatter_of_integers(reduce):
    src, index = torch.tensor([-5, 2, 7, -3]), torch.tensor([0, 0, 2, 2])
    expected = {
        "sum": [-3, 0, 4],
        "add": [-3, 0, 4],
        "mul": [-10, 1, -21],
        "mean": [-2, 0, 2],  # rounded down
        "min": [-5, 0, -3],
        "max": [2, 0, 7],
    }[reduce]
    out = _native.scatter(src, index, reduce=reduce)
    assert out.dtype == torch.long
    assert out.tolist() == expected


@pytest.mark.parametrize(("reduce", "masked"), [("max", -math.inf), ("min", math.inf)])
def test_scatter_gives_zero_where_nothing_can_win(reduce, masked):
    src = torch.tensor([masked, masked, masked, 4.0, math.nan, math.nan, 5.0])
    index = torch.tensor([0, 0, 1, 1, 2, 3, 3])
    out = _native.scatter(src, index, 0, dim_size=5, reduce=reduce)
    assert out.tolist() == [0.0, 4.0, 0.0, 5.0, 0.0]


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_scatter_of_nothing(reduce):
    src, index = torch.zeros(2, 0, 3), torch.zeros(0, dtype=torch.long)
    assert _native.scatter(src, index, 1, reduce=reduce).shape == (2, 0, 3)
    empty = _native.scatter(src, index, 1, dim_size=2, reduce=reduce)
    assert torch.equal(empty, torch.full((2, 2, 3), 1.0 if reduce == "mul" else 0.0))


@pytest.mark.parametrize("reduce", SEGMENT_REDUCTIONS)
@few
@given(shape=shapes, seed=seeds, data=st.data())
def test_segment_csr_matches_python_loops(reduce, shape, seed, data):
    generator = torch.Generator().manual_seed(seed)
    dim = data.draw(st.integers(0, len(shape) - 1))
    src = torch.randn(shape, generator=generator, dtype=torch.float64)
    lead = shape[:dim] if data.draw(st.booleans()) else [1] * dim
    indptr = borders(generator, lead, shape[dim], data.draw(st.integers(1, 5)))
    expected = naive_segment(src, indptr.expand(*shape[:dim], -1), dim, reduce)

    torch.testing.assert_close(_native.segment_csr(src, indptr, reduce=reduce), expected)
    out = torch.full_like(expected, 99.0)
    assert _native.segment_csr(src, indptr, out, reduce) is out
    torch.testing.assert_close(out, expected)


def test_segment_csr_leaves_out_what_lies_outside_of_the_ranges():
    src = torch.tensor([100.0, 1.0, 2.0, 4.0, 100.0])
    assert _native.segment_csr(src, torch.tensor([1, 3, 4])).tolist() == [3.0, 4.0]


@few
@given(shape=shapes, seed=seeds, data=st.data())
def test_gather_csr_matches_python_loops(shape, seed, data):
    generator = torch.Generator().manual_seed(seed)
    dim = data.draw(st.integers(0, len(shape) - 1))
    length = data.draw(st.integers(0, 5))
    src = torch.randn(shape, generator=generator, dtype=torch.float64)
    lead = shape[:dim] if data.draw(st.booleans()) else [1] * dim
    indptr = borders(generator, lead, length, shape[dim])
    full = indptr.expand(*shape[:dim], -1)
    expected = torch.full((*shape[:dim], length, *shape[dim + 1 :]), math.nan, dtype=torch.float64)
    for position in itertools.product(*map(range, shape)):
        before, i, after = position[:dim], position[dim], position[dim + 1 :]
        for place in range(int(full[(*before, i)]), int(full[(*before, i + 1)])):
            expected[(*before, place, *after)] = src[position]

    torch.testing.assert_close(_native.gather_csr(src, indptr), expected)
    out = torch.zeros_like(expected)
    assert _native.gather_csr(src, indptr, out) is out
    torch.testing.assert_close(out, expected)


def test_gather_csr_keeps_out_outside_of_the_ranges():
    out = torch.tensor([9.0, 9.0, 9.0, 9.0])
    _native.gather_csr(torch.tensor([1.0, 2.0]), torch.tensor([1, 2, 3]), out)
    assert out.tolist() == [9.0, 1.0, 2.0, 9.0]
    assert _native.gather_csr(torch.tensor([1.0]), torch.tensor([1, 2])).tolist() == [0.0, 1.0]
    assert _native.gather_csr(torch.zeros(0), torch.tensor([0])).tolist() == []


def test_broadcast():
    other = torch.zeros(2, 3, 4)
    middle = _native.broadcast(torch.tensor([5, 6, 7]), other, -2)
    assert middle.tolist() == [[[5] * 4, [6] * 4, [7] * 4]] * 2
    first = _native.broadcast(torch.tensor([5, 6]), other, 0)
    assert first.tolist() == [[[5] * 4] * 3, [[6] * 4] * 3]
    trailing = _native.broadcast(torch.tensor([[1, 2, 3], [4, 5, 6]]), other, 1)
    assert trailing.tolist() == [[[1] * 4, [2] * 4, [3] * 4], [[4] * 4, [5] * 4, [6] * 4]]


def test_bad_arguments():
    src, index = torch.ones(2), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"'reduce' must be one of .* \(got 'median'\)"):
        _native.scatter(src, index, reduce="median")
    with pytest.raises(ValueError, match=r"'reduce' must be one of .* \(got 'median'\)"):
        _native.segment_csr(src, torch.tensor([0, 2]), reduce="median")
    with pytest.raises(ValueError, match=r"'reduce' must be one of .* \(got 'mul'\)"):
        _native.segment_csr(src, torch.tensor([0, 2]), reduce="mul")
    with pytest.raises(ValueError, match=r"'src' must have size 1 .* \(got 2\)"):
        _native.gather_csr(src, torch.tensor([0, 2]))


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_gradients(reduce):
    generator = torch.Generator().manual_seed(0)
    src = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([0, 2, 2, 0, 3])
    assert torch.autograd.gradcheck(
        lambda x: _native.scatter(x, index, 1, dim_size=5, reduce=reduce), src
    )
    if reduce != "mul":
        indptr = torch.tensor([[0, 2, 2, 5]])
        assert torch.autograd.gradcheck(lambda x: _native.segment_csr(x, indptr, None, reduce), src)


def test_gradient_of_gather_csr():
    src = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    indptr = torch.tensor([[0, 2, 2, 5]])
    assert torch.autograd.gradcheck(lambda x: _native.gather_csr(x, indptr), src)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_functions_are_scriptable(reduce):
    src, index, indptr = torch.randn(4, 3), torch.tensor([0, 2, 2, 0]), torch.tensor([0, 1, 1, 4])
    scripted = torch.jit.script(_native.scatter)
    for out in (None, torch.ones(3, 3)):
        copy = None if out is None else out.clone()
        expected = _native.scatter(src, index, 0, out, 3, reduce)
        torch.testing.assert_close(scripted(src, index, 0, copy, 3, reduce), expected)
    if reduce != "mul":
        segments = _native.segment_csr(src, indptr, reduce=reduce)
        scripted = torch.jit.script(_native.segment_csr)
        torch.testing.assert_close(scripted(src, indptr, reduce=reduce), segments)
        gathered = torch.jit.script(_native.gather_csr)(segments, indptr)
        torch.testing.assert_close(gathered, _native.gather_csr(segments, indptr))


@pytest.mark.tsl
@pytest.mark.skipif(not is_installed("torch_scatter"), reason="torch-scatter is not installed")
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_stand_ins_agree_with_the_native_functions(reduce):
    import torch_scatter

    src = torch.randn(2, 6, 3, dtype=torch.float64)
    src[:, 4:] = -math.inf if reduce == "max" else src[:, 4:]
    index, indptr = torch.tensor([0, 2, 2, 0, 4, 4]), torch.tensor([[0, 1, 1, 4]])
    for dim, size in [(1, 6), (-2, None)]:
        ours = _native.scatter(src, index, dim, dim_size=size, reduce=reduce)
        native = torch_scatter.scatter(src, index, dim, dim_size=size, reduce=reduce)
        torch.testing.assert_close(ours, native)
    out = torch.randn(2, 5, 3, dtype=torch.float64)
    native = torch_scatter.scatter(src, index, 1, out=out.clone(), reduce=reduce)
    torch.testing.assert_close(_native.scatter(src, index, 1, out=out, reduce=reduce), native)
    if reduce != "mul":
        native = torch_scatter.segment_csr(src, indptr, reduce=reduce)
        torch.testing.assert_close(_native.segment_csr(src, indptr, reduce=reduce), native)
        gathered = torch_scatter.gather_csr(native, indptr)
        torch.testing.assert_close(_native.gather_csr(native, indptr), gathered)


@pytest.mark.parametrize(
    "make",
    [
        _native.SparseTensor,
        lambda: _native.SparseTensor(row=torch.tensor([0]), col=torch.tensor([0])),
        lambda: _native.SparseTensor.from_edge_index(torch.tensor([[0], [1]])),
        lambda: _native.SparseTensor.from_dense(torch.eye(2)),
        lambda: _native.SparseTensor.from_scipy(None),
    ],
)
def test_sparse_tensor_names_the_command_that_installs_it(make):
    with pytest.raises(ImportError) as error:
        make()
    assert 'pip install --no-build-isolation "tsl-latentgnn[native]"' in str(error.value)


# None in sys.modules makes a package look absent, whether or not it is installed.
PUT_STAND_INS = """
import importlib.util, json, sys, torch
for name in {absent}:
    sys.modules[name] = None
from tsl_latentgnn import _native
loaded = sorted({{name.partition(".")[0] for name in sys.modules}})
assert not any(i.__module__.startswith('tsl') for i in torch.serialization.get_safe_globals())
_native._put_stand_ins()
import torch_scatter, torch_scatter.utils, torch_sparse
seen = {{
    "loaded by _native": loaded,
    "specs": [importlib.util.find_spec(n).name for n in ("torch_scatter", "torch_sparse")],
    "fake": [getattr(module, "FAKE", False) for module in (torch_scatter, torch_sparse)],
    "ours": getattr(torch_scatter, "scatter", None) is _native.scatter,
    "errors": {{}},
}}
for name in ("cat", "fill_diag", "matmul", "remove_diag", "set_diag", "SparseTensor"):
    try:
        getattr(torch_sparse, name)(torch.eye(2))
    except ImportError as error:
        seen["errors"][name] = str(error)
if {absent}:
    import torch_geometric.typing as pyg
    from torch_geometric.utils import is_sparse
    seen["pyg"] = [pyg.WITH_TORCH_SCATTER, pyg.WITH_TORCH_SPARSE]
    seen["pyg type"] = pyg.SparseTensor is torch_sparse.SparseTensor
    seen["pyg is_sparse"] = [is_sparse(torch.eye(2)), is_sparse(torch.eye(2).to_sparse())]
else:
    seen["pyg loaded"] = "torch_geometric" in sys.modules
print(json.dumps(seen))
"""
FAKES = {
    "torch_scatter": "FAKE = True\n",
    "torch_sparse": "FAKE = True\nclass SparseStorage: ...\nclass SparseTensor:\n"
    "    def __init__(self, *args): ...\n"
    "cat = fill_diag = matmul = remove_diag = set_diag = SparseTensor\n",
}


CASES = {
    "both absent": ["torch_scatter", "torch_sparse"],
    "torch_scatter absent": ["torch_scatter"],
    "torch_sparse absent": ["torch_sparse"],
    "both present": [],
}


@pytest.fixture(scope="module")
def interpreters(tmp_path_factory):
    """A fresh interpreter for each case, started together to save time."""
    started = {}
    for case, absent in CASES.items():
        root = tmp_path_factory.mktemp("packages")
        for name in set(FAKES) - set(absent):
            (root / name).mkdir()
            (root / name / "__init__.py").write_text(FAKES[name])
            (root / name / "utils.py").write_text("")
        path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
        started[case] = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PUT_STAND_INS.format(absent=absent)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("case", CASES)
def test_stand_ins_take_only_the_places_that_are_empty(interpreters, case):
    printed, problem = interpreters[case].communicate(timeout=120)
    assert interpreters[case].returncode == 0, problem
    seen = json.loads(printed.splitlines()[-1])

    # Importing _native puts stand-ins, for which it loads PyG, but never tsl.
    assert "torch" in seen["loaded by _native"]
    assert "tsl" not in seen["loaded by _native"]

    present = [name not in CASES[case] for name in ("torch_scatter", "torch_sparse")]
    assert seen["specs"] == ["torch_scatter", "torch_sparse"]
    assert seen["fake"] == present
    assert seen["ours"] is not present[0]
    refused = {"cat", "fill_diag", "matmul", "remove_diag", "set_diag", "SparseTensor"}
    assert set(seen["errors"]) == (set() if present[1] else refused)
    assert all("tsl-latentgnn[native]" in message for message in seen["errors"].values())
    if all(present):
        assert seen["pyg loaded"] is False
    else:
        assert seen["pyg"] == present
        assert seen["pyg type"] is present[1]
        assert seen["pyg is_sparse"] == [False, True]


@pytest.fixture(scope="module")
def tsl():
    return pytest.importorskip("tsl")


@pytest.mark.tsl
def test_tsl_softmax_with_index_and_with_pointers(tsl):
    from tsl.nn.functional import sparse_softmax

    src = torch.randn(2, 6, 3)
    index, ptr = torch.tensor([0, 0, 1, 3, 3, 3]), torch.tensor([0, 2, 3, 3, 6])
    expected = torch.cat([src[:, a:b].softmax(1) for a, b in [(0, 2), (2, 3), (3, 6)]], dim=1)
    by_index = sparse_softmax(src, index, num_nodes=4, dim=1)
    torch.testing.assert_close(by_index, expected, rtol=1e-4, atol=1e-5)
    by_ptr = sparse_softmax(src, None, ptr, dim=1)
    torch.testing.assert_close(by_ptr, expected, rtol=1e-4, atol=1e-5)
    masked = src.clone()
    masked[:, :2] = -math.inf
    masked = sparse_softmax(masked, index, num_nodes=4, dim=1)
    assert torch.equal(masked[:, :2], torch.zeros(2, 2, 3))


@pytest.mark.tsl
@pytest.mark.skipif(is_installed("torch_sparse"), reason="torch-sparse is installed")
def test_tsl_sparse_layout_names_the_command(tsl):
    from tsl.ops.connectivity import convert_torch_connectivity

    edge_index = torch.tensor([[0, 1, 2], [1, 2, 0]])
    with pytest.raises(ImportError, match=r"tsl-latentgnn\[native\]"):
        convert_torch_connectivity((edge_index, None), "sparse", "edge_index", num_nodes=3)


@pytest.fixture(scope="module")
def trained(tsl, tmp_path_factory):
    """The pattern of tsl's traffic example, with a Hydra-like configuration, for one epoch."""
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
    from tsl.data import SpatioTemporalDataModule, SpatioTemporalDataset
    from tsl.data.datamodule import TemporalSplitter
    from tsl.data.preprocessing import StandardScaler
    from tsl.engines import Predictor
    from tsl.metrics.torch import MaskedMAE, MaskedMAPE, MaskedMRE, MaskedMSE
    from tsl.nn.models import RNNModel

    omegaconf = pytest.importorskip("omegaconf")
    cfg = omegaconf.OmegaConf.create(
        {
            "model": {"hparams": {"hidden_size": 4, "ff_size": 4}},
            "optimizer": {"hparams": {"lr": 0.01, "betas": [0.9, 0.99]}},
            "lr_scheduler": {"hparams": {"gamma": 0.5, "milestones": [1, 2]}},
            "tags": ["x", "${model.hparams.hidden_size}"],
        }
    )
    root = tmp_path_factory.mktemp("trained")
    generator = torch.Generator().manual_seed(0)
    dataset = SpatioTemporalDataset(torch.randn(48, 3, 1, generator=generator), window=3, horizon=3)
    data = SpatioTemporalDataModule(
        dataset,
        scalers={"target": StandardScaler(axis=(0, 1))},
        splitter=TemporalSplitter(val_len=0.2, test_len=0.2),
        batch_size=16,
    )
    model_kwargs = {"input_size": 1, "output_size": 1, "horizon": 3}
    model_kwargs.update(cfg.model.hparams)

    def make_predictor():
        return Predictor(
            model_class=RNNModel,
            model_kwargs=model_kwargs,
            optim_class=torch.optim.Adam,
            optim_kwargs=dict(cfg.optimizer.hparams),
            loss_fn=MaskedMAE(),
            metrics={
                "mae": MaskedMAE(),
                "mse": MaskedMSE(),
                "mape": MaskedMAPE(),
                "mre": MaskedMRE(),
                "mae_at_3": MaskedMAE(at=2),
            },
            scheduler_class=torch.optim.lr_scheduler.MultiStepLR,
            scheduler_kwargs=dict(cfg.lr_scheduler.hparams),
            scale_target=True,
        )

    def make_trainer(max_epochs, *callbacks):
        return pl.Trainer(
            max_epochs=max_epochs,
            accelerator="cpu",
            default_root_dir=root,
            logger=False,
            callbacks=list(callbacks),
            enable_checkpointing=bool(callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    predictor = make_predictor()
    best = ModelCheckpoint(dirpath=root, monitor="val_mae", mode="min")
    make_trainer(1, best, EarlyStopping("val_mae")).fit(predictor, data)
    weights = {name: value.clone() for name, value in predictor.state_dict().items()}
    return best.best_model_path, weights, data, make_predictor, make_trainer


def assert_same_weights(module, weights):
    state = module.state_dict()
    assert state.keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in state.items())


@pytest.mark.tsl
def test_load_model_reads_a_checkpoint_of_the_tsl_example(trained):
    path, weights, _, make_predictor, _ = trained
    predictor = make_predictor()
    assert any(not torch.equal(v, weights[k]) for k, v in predictor.state_dict().items())
    predictor.load_model(path)
    assert_same_weights(predictor, weights)


@pytest.mark.tsl
def test_everything_in_the_checkpoint_comes_back_with_the_safety_on(trained):
    path = trained[0]
    hparams = torch.load(path, weights_only=True)["hyper_parameters"]
    assert hparams["scheduler_kwargs"]["milestones"] == [1, 2]
    assert hparams["optim_class"] is torch.optim.Adam
    assert hparams["scheduler_class"] is torch.optim.lr_scheduler.MultiStepLR
    y_hat, y = torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1), torch.ones(1, 3, 1)
    computed = {}
    for name, metric in hparams["metrics"].items():
        metric.reset()
        metric.update(y_hat, y)
        computed[name] = float(metric.compute())
    expected = {"mae": 4 / 3, "mse": 10 / 3, "mape": 4 / 3, "mre": 4 / 3, "mae_at_3": 3.0}
    assert computed == pytest.approx(expected)


@pytest.mark.tsl
def test_lightning_resumes_tests_and_restores_from_the_checkpoint(trained):
    from tsl.engines import Predictor
    from tsl.metrics.torch import MaskedMAE

    path, weights, data, make_predictor, make_trainer = trained
    assert_same_weights(Predictor.load_from_checkpoint(path, loss_fn=MaskedMAE()), weights)

    tester = make_trainer(1)
    from_path = tester.test(make_predictor(), data, ckpt_path=path, verbose=False)
    predictor = make_predictor()
    predictor.load_model(path)
    assert tester.test(predictor, data, verbose=False) == from_path

    resumed = make_trainer(2)
    resumed.fit(predictor, data, ckpt_path=path)
    assert resumed.current_epoch == 2
    assert resumed.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 * 0.5**2)


class Payload:
    """Calls ``function(*arguments)`` when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.tsl
@pytest.mark.parametrize("name", ["mkdir", "eval", "exec", "getattr", "partial"])
def test_a_checkpoint_that_carries_code_is_refused_and_does_not_run(trained, tmp_path, name):
    path, _, _, make_predictor, _ = trained
    mark = tmp_path / "ran"
    code = f"__import__('os').mkdir({str(mark)!r})"
    payload = {
        "mkdir": Payload(os.mkdir, str(mark)),
        "eval": Payload(eval, code),
        "exec": Payload(exec, code),
        "getattr": [Payload(getattr, Path(mark), "name"), Payload(os.mkdir, str(mark))],
        "partial": [partial(os.mkdir, str(mark)), Payload(os.mkdir, str(mark))],
    }[name]
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"]["metrics"]["mae"] = payload
    hostile = tmp_path / "hostile.ckpt"
    torch.save(checkpoint, hostile)

    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        make_predictor().load_model(hostile)
    assert not mark.exists()
    torch.load(hostile, weights_only=False)  # the payload is live: only the safety held it
    assert mark.exists()


@pytest.fixture
def empty_allow_list():
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    yield
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(before)


@pytest.mark.tsl
def test_allow_list_holds_classes_and_few_functions(tsl, empty_allow_list):
    _tsl._allow_predictor_checkpoints()
    once = torch.serialization.get_safe_globals()
    _tsl._allow_predictor_checkpoints()
    assert set(torch.serialization.get_safe_globals()) == set(once)
    names = {f"{item.__module__}.{item.__qualname__}" for item in once}
    functions = {
        f"{item.__module__}.{item.__qualname__}" for item in once if not isinstance(item, type)
    } - {"typing.Any"}
    assert functions == {
        "torch.nn.functional.l1_loss",
        "torch.nn.functional.mse_loss",
        "torchmetrics.metric.jit_distributed_available",
        "torchmetrics.utilities.data.dim_zero_sum",
        "tsl.metrics.torch.functional.mape",
        "tsl.metrics.torch.functional.smape",
        "tsl.metrics.torch.functional.pinball_loss",
    }
    plain = {
        name for name in names if name.split(".")[0] in ("builtins", "collections", "functools")
    }
    assert plain <= {
        "builtins.dict",
        "builtins.int",
        "builtins.list",
        "builtins.slice",
        "collections.defaultdict",
        "functools.partial",
    }
    packages = {name.split(".")[0] for name in names}
    assert packages <= {
        *("builtins", "collections", "functools", "typing"),
        *("omegaconf", "torch", "torchmetrics", "tsl"),
    }


class OwnModel:
    """Stands for a model class of a user."""


def test_allow_in_checkpoints(tmp_path, empty_allow_list):
    path = tmp_path / "own.ckpt"
    torch.save({"hyper_parameters": {"model_class": OwnModel}}, path)
    with pytest.raises(pickle.UnpicklingError, match="OwnModel"):
        torch.load(path, weights_only=True)
    allow_in_checkpoints(OwnModel)
    assert torch.load(path, weights_only=True)["hyper_parameters"]["model_class"] is OwnModel


@pytest.mark.parametrize("bad", [eval, os.mkdir, "OwnModel", OwnModel()])
def test_allow_in_checkpoints_refuses_what_is_no_class(bad, empty_allow_list):
    with pytest.raises(TypeError, match="'classes' must be classes"):
        allow_in_checkpoints(OwnModel, bad)
    assert torch.serialization.get_safe_globals() == []


NEW_PROCESSES = """
from tsl_latentgnn import LatentGNNModel  # first, as README says
import torch
from tsl.data import SpatioTemporalDataset
from tsl.data.loader import StaticGraphLoader

windows = SpatioTemporalDataset(torch.rand(40, 3), window=8, horizon=4)
loader = StaticGraphLoader(windows, batch_size=8, num_workers=1, multiprocessing_context="{method}")
print(list(next(iter(loader)).input.x.shape))
"""


@pytest.mark.tsl
@pytest.mark.parametrize(("how", "method"), [("-", "spawn"), ("-c", "forkserver")])
def test_workers_that_are_started_anew_find_tsl(how, method):
    """Met in pytorch/pytorch#51344: where processes are not forked, and of a notebook, which none can run again."""
    if method not in mp.get_all_start_methods():
        pytest.skip(f"this machine has no {method}")
    code = NEW_PROCESSES.format(method=method)
    command = [sys.executable, "-W", "ignore", how, *([code] if how == "-c" else [])]
    run = subprocess.run(command, input=code, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[8, 8, 3, 1]"
