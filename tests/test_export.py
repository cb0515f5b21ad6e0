"""Files of a forecaster against the forecaster, run by a process that has neither tsl, PyG nor this package."""

from __future__ import annotations

import subprocess
import sys

from tsl_latentgnn.engines import LatentGNNPredictor
from tsl_latentgnn.export import export_model
from tsl_latentgnn.models import LatentGNNModel, Seq2SeqLatentGNN
from tsl_latentgnn.nn.functional import edges as edge_ops
from tsl_latentgnn.nn.functional import select as select_sources

import pytest
import torch
from marks import needs_compiler
from references import small_preset
from torch.nn import Linear

from tsl.metrics.torch import MaskedMAE  # isort: skip

NODES, STEPS, HORIZON = 9, 4, 2
PRESET = small_preset(hidden_size=16, k_neighbors=3, latent_layers=1)

RUN_ALONE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tsl", "torch_geometric", "tsl_latentgnn"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import torch
for case in sys.argv[1:]:
    program = torch.export.load(case + ".pt2").module()
    with torch.no_grad():
        outputs = [program(**inputs) for inputs in torch.load(case + ".inputs")]
    torch.save(outputs, case + ".outputs")
assert not {"tsl", "torch_geometric", "tsl_latentgnn"} & set(sys.modules)
"""


def randomize(model):
    """Draw the static correlations, too, which all start equal."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def tsl_model(**options):
    return randomize(
        LatentGNNModel(1, 1, HORIZON, NODES, exog_size=2, future_exog_size=2, **options)
    )


def tsl_inputs(batch):
    return {
        "x": torch.randn(batch, STEPS, NODES, 1),
        "input_mask": torch.rand(batch, STEPS, NODES, 1) < 0.7,
        "u": torch.randn(batch, STEPS, 2),
        "u_future": torch.randn(batch, HORIZON, 2),
    }


def plain_model():
    return randomize(
        Seq2SeqLatentGNN(2, 8, NODES, HORIZON, k_neighbors=3, latent_layers=1, lstm_layers=1)
    )


def plain_inputs(batch):
    return {"node_features": torch.randn(batch, STEPS, NODES, 2)}


SIGNED = {**PRESET, "weights": "signed", "gate": True, "heads": 2, "dynamic": True}
CASES = {
    "preset": (lambda: tsl_model(**PRESET), tsl_inputs),
    "signed": (lambda: tsl_model(**SIGNED), tsl_inputs),
    "plain": (plain_model, plain_inputs),
}


def check(model, inputs, outputs):
    """Compare what a file gave with what the model gives."""
    with torch.no_grad():
        expected = model(**inputs)
    # A model gives one tensor or a tuple, and so does its program; onnxruntime gives a list.
    expected, outputs = (
        [values] if isinstance(values, torch.Tensor) else values for values in (expected, outputs)
    )
    for ours, theirs in zip(expected, outputs, strict=True):
        torch.testing.assert_close(torch.as_tensor(theirs), ours, rtol=0, atol=1e-5)


def test_a_process_without_the_sources_computes_the_same(tmp_path):
    for case, (make_model, make_inputs) in CASES.items():
        export_model(make_model(), tmp_path / f"{case}.pt2", make_inputs(1))
        torch.save([make_inputs(1), make_inputs(5)], tmp_path / f"{case}.inputs")

    command = [sys.executable, "-I", "-c", RUN_ALONE, *CASES]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    for case, (make_model, _) in CASES.items():
        batches, results = (torch.load(tmp_path / f"{case}.{end}") for end in ("inputs", "outputs"))
        for inputs, outputs in zip(batches, results, strict=True):
            check(make_model(), inputs, outputs)


@needs_compiler
@pytest.mark.parametrize("case", CASES)
def test_a_program_compiles_in_one_graph(case, tmp_path):
    make_model, make_inputs = CASES[case]
    torch.compiler.reset()
    export_model(make_model(), tmp_path / "model.pt2", make_inputs(1))
    compiled = torch.compile(torch.export.load(tmp_path / "model.pt2").module(), fullgraph=True)
    inputs = make_inputs(5)
    with torch.no_grad():
        outputs = compiled(**inputs)
    check(make_model(), inputs, outputs)


@pytest.mark.parametrize("case", CASES)
def test_onnxruntime_computes_the_same(case, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    make_model, make_inputs = CASES[case]
    export_model(make_model(), tmp_path / "model.onnx", make_inputs(1))

    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for batch in (1, 5):
        inputs = make_inputs(batch)
        outputs = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        check(make_model(), inputs, outputs)


@pytest.fixture
def exporting(monkeypatch):
    """Switch to what an exported program computes, and back."""

    def switch(on):
        for module in (edge_ops, select_sources):
            monkeypatch.setattr(module, "needs_plain_ops", lambda: on)

    return switch


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("restricted", [False, True])
def test_a_program_selects_the_same_sources_of_equal_scores(restricted, masked, own, exporting):
    torch.manual_seed(0)
    query, key = torch.randint(-1, 2, (2, 4, NODES, 2)).float()  # many scores are equal
    mask = torch.rand(4, NODES) < 0.6 if masked else None
    bias = torch.randint(-1, 2, (NODES, NODES)).float()

    def select():
        options = {"bias": bias, "self_loops": own}
        if not restricted:
            return select_sources.select_sources(query, key, 5, mask=mask, **options)
        table = (torch.arange(NODES).view(-1, 1) + torch.arange(NODES)) % NODES
        absent = None if mask is None else ~mask[:, table]
        return select_sources.select_candidates(query, key, 5, table, absent=absent, **options)

    exporting(False)
    scores, sources = select()
    exporting(True)
    theirs, their_sources = select()
    assert torch.equal(sources, their_sources)
    if mask is None:
        torch.testing.assert_close(theirs, scores)


def test_a_program_sums_the_same_edges(exporting):
    torch.manual_seed(0)
    target, source = torch.randn(2, 3, NODES, 2, 4)
    neighbors = torch.randint(NODES, (3, NODES, 5))
    weight = torch.rand(3, NODES, 5, 2)
    exporting(True)
    scores = edge_ops.edge_score(target, source, neighbors, 0.5)
    sums = edge_ops.edge_sum(weight, source, neighbors)

    picked = torch.stack([source[g, neighbors[g]] for g in range(3)])
    torch.testing.assert_close(scores, 0.5 * torch.einsum("gnhd,gnkhd->gnkh", target, picked))
    torch.testing.assert_close(sums, torch.einsum("gnkh,gnkhd->gnhd", weight, picked))


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (
            ValueError,
            r"'path' must end with .pt2 or .onnx \(got 'model.pth'\)",
            {"path": "model.pth"},
        ),
        (ValueError, "'model' must be in evaluation mode", {"model": Linear(1, 1)}),
        (
            ValueError,
            r"'inputs' must hold the named inputs of the model \(got none\)",
            {"inputs": {}},
        ),
        (TypeError, r"'inputs' must hold tensors \(got list for 'x'\)", {"inputs": {"x": [1.0]}}),
    ],
)
def test_refused(error, message, change):
    arguments = {"model": plain_model(), "path": "model.pt2", "inputs": plain_inputs(1), **change}
    with pytest.raises(error, match=message):
        export_model(**arguments)


@pytest.mark.parametrize("norm", ["batch", "graph"])
def test_refuses_to_count_masked_nodes(norm, tmp_path):
    model = tsl_model(hidden_size=8, norm=norm)
    with pytest.raises(ValueError, match="'inputs' must be without 'input_mask'"):
        export_model(model, tmp_path / "model.pt2", tsl_inputs(2))


def test_refuses_what_trains_a_forecaster(tmp_path):
    predictor = LatentGNNPredictor(model=tsl_model(**PRESET), loss_fn=MaskedMAE())
    with pytest.raises(TypeError, match=r"'model' .*got LatentGNNPredictor\): give its \.model"):
        export_model(predictor.eval(), tmp_path / "model.pt2", tsl_inputs(1))
    with pytest.raises(TypeError, match=r"'model' must be the forecaster itself \(got dict\)"):
        export_model({}, tmp_path / "model.pt2", tsl_inputs(1))
