# ruff: noqa: RUF001 -- the tables have signs that look like letters

from __future__ import annotations

import itertools
import math
import statistics

from tsl_latentgnn.models import Seq2SeqLatentGNN

import pytest
import torch

from benchmarks.speed import __main__ as speed
from benchmarks.speed import gpu, graph, models, seq2seq, timing
from benchmarks.speed.footprint import fit_exponent, peak_growth_mib
from benchmarks.speed.latency import format_latency
from benchmarks.speed.memory import layer_step, score_product
from benchmarks.speed.models import masked_mae, random_graph
from benchmarks.speed.report import Row, Table, Target, format_rate, format_seconds
from benchmarks.speed.seq2seq import BareRecurrence
from benchmarks.speed.settings import Settings
from benchmarks.speed.timing import Spread, interleave, ratio


@pytest.fixture(autouse=True)
def keep_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


class FakeClock:
    """A clock that moves only when a side is run."""

    def __init__(self):
        self.now = 100.0
        self.log = []

    def __call__(self):
        return self.now

    def side(self, name, seconds):
        durations = iter(seconds)

        def run():
            self.log.append(name)
            self.now += next(durations)

        return run


def allocate(mib, device):
    """Make a computation whose peak is known: it holds ``mib`` MiB for a moment."""
    given = torch.ones(10, 2**18, device=device)  # 10 MiB that are there before

    def run():
        held = torch.ones(mib, 2**18, device=device)
        return float(held.sum() + given.sum())

    return run


def fail(device):
    def run():
        raise RuntimeError("out of luck")

    return run


def test_sides_take_turns_and_warmup_does_not_count():
    clock = FakeClock()
    sides = {"a": clock.side("a", [9, 1, 2, 3]), "b": clock.side("b", [8, 4, 4, 12])}
    seconds = interleave(sides, 3, warmup=1, clock=clock)
    assert clock.log == ["a", "b"] * 4
    assert seconds == {"a": [1, 2, 3], "b": [4, 4, 12]}


def test_without_warmup_every_round_counts():
    clock = FakeClock()
    assert interleave({"a": clock.side("a", [9, 1])}, 2, warmup=0, clock=clock) == {"a": [9, 1]}


def test_a_gpu_is_waited_for_before_the_clock_is_read(monkeypatch):
    clock = FakeClock()

    def finish(device):
        clock.log.append("wait")
        clock.now += clock.pending
        clock.pending = 0.0

    def launch():
        clock.pending = 5.0

    clock.pending = 7.0  # work from before, which no side may be charged for
    monkeypatch.setattr(timing.torch.cuda, "synchronize", finish)
    sides = {"a": launch, "b": lambda: None}
    seconds = interleave(sides, 2, warmup=0, device=torch.device("cuda"), clock=clock)
    assert seconds == {"a": [5.0, 5.0], "b": [0.0, 0.0]}
    assert clock.log == ["wait"] * 8


@pytest.mark.parametrize(("repeats", "warmup"), [(0, 1), (-1, 1), (1, -1)])
def test_numbers_of_rounds_are_checked(repeats, warmup):
    with pytest.raises(ValueError, match=r"'(repeats|warmup)' must be an int >= [01] \(got"):
        interleave({}, repeats, warmup=warmup)


def test_a_ratio_is_that_of_each_round():
    # Ratios 2, 0.5, 3, 4, 1: the ratio of the medians would be 30 / 10 = 3.
    found = ratio([20, 5, 30, 40, 100], [10, 10, 10, 10, 100])
    assert found == Spread(2.0, 1.0, 3.0)
    assert ratio([3.0], [2.0]) == Spread(1.5, 1.5, 1.5)
    with pytest.raises(ValueError, match="shorter"):
        ratio([1, 2], [1])


def test_quartiles_lie_between_the_values():
    values = [5.0, 1.0, 2.0, 4.0, 3.0, 9.0]
    spread = Spread.of(values)
    assert spread.median == statistics.median(values) == 3.5
    assert (spread.low, spread.high) == (2.25, 4.75)
    with pytest.raises(ValueError, match="'values' must not be empty"):
        Spread.of([])


def test_targets_bound_from_above_or_below():
    assert Target(1.0).is_met(1.0)
    assert not Target(1.0).is_met(1.01)
    assert Target(3.0, at_least=True).is_met(3.0)
    assert not Target(3.0, at_least=True).is_met(2.99)
    assert not Target(1.0).is_met(math.nan)
    assert not Target(1.0, at_least=True).is_met(math.nan)


def test_table_as_markdown():
    table = Table(
        "Title",
        "A note.",
        [
            Row("fast", "1 ms", "2 ms", Spread(0.5, 0.4, 0.625), Target(0.8)),
            Row("slow", "9 w/s", "3 w/s", Spread(2.0, 2.0, 2.0), Target(3, at_least=True)),
            Row("memory", measured=Spread.of([0.25]), target=Target(1), unit=" GiB"),
            Row("point", "12 MiB"),
        ],
    )
    assert table.to_markdown().splitlines() == [
        "### Title",
        "",
        "A note.",
        "",
        "|  | Ours | Reference | Measured | Quartiles | Target | Met |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
        "| fast | 1 ms | 2 ms | 0.50× | 0.40–0.62 | ≤ 0.8× | yes |",
        "| slow | 9 w/s | 3 w/s | 2.00× | – | ≥ 3× | **no** |",
        "| memory | – | – | 0.25 GiB | – | ≤ 1 GiB | yes |",
        "| point | 12 MiB | – | – | – | – | – |",
    ]
    bare = table.without_targets().to_markdown()
    assert "≤" not in bare
    assert "yes" not in bare
    assert "| memory | – | – | 0.25 GiB | – | – | – |" in bare


@pytest.mark.parametrize(
    ("seconds", "text"),
    [([0.0123, 9, 0.001], "12.3 ms"), ([1.5], "1.50 s"), ([0.25, 0.75], "500 ms")],
)
def test_seconds_are_written_as_their_median(seconds, text):
    assert format_seconds(seconds) == text


def test_rates_are_written_as_windows_per_second():
    assert format_rate([2.0, 4.0, 8.0], 16) == "4 windows/s"
    assert format_rate([0.05], 64) == "1,280 windows/s"


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_exponent_of_a_power_law(exponent):
    sizes = [1000, 2000, 4000, 32000]
    assert fit_exponent(sizes, [0.3 * n**exponent for n in sizes]) == pytest.approx(exponent)


def test_exponent_is_the_least_squares_slope():
    sizes, values = [1, 2, 4], [1.0, 4.0, 4.0]
    # In units of log 2 the points are (0, 0), (1, 2), (2, 2): the slope is 1.
    assert fit_exponent(sizes, values) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("sizes", "values"), [([1], [1.0]), ([1, 2], [1.0]), ([1, 2], [0.0, 1.0]), ([0, 2], [1.0, 1.0])]
)
def test_exponent_needs_two_positive_points(sizes, values):
    with pytest.raises(ValueError, match="'sizes' and 'values' must be"):
        fit_exponent(sizes, values)


def test_peak_growth_is_that_of_the_computation_alone():
    found = peak_growth_mib(allocate, {"mib": 200}, {"mib": 1}, Settings(threads=1))
    assert found == pytest.approx(200, abs=4)


def test_an_error_in_the_process_comes_back():
    with pytest.raises(RuntimeError, match="out of luck"):
        peak_growth_mib(fail, {}, {}, Settings(threads=1))


@pytest.mark.parametrize("block_bytes", [1, 4 * 7 * 3, 2**20])
def test_score_product_computes_every_block(monkeypatch, block_bytes):
    query, key = torch.randn(2, 7, 5), torch.randn(2, 7, 5)
    blocks = []
    product = torch.mm

    def spy(*factors, out):
        blocks.append(product(*factors, out=out).clone())
        assert out.numel() * 4 <= max(block_bytes, 4 * 7)
        return out

    monkeypatch.setattr(torch, "mm", spy)
    score_product(query, key, block_bytes)
    torch.testing.assert_close(torch.cat(blocks).view(2, 7, 7), query @ key.mT)


def test_both_graph_steps_agree_where_every_source_is_a_neighbor():
    # The step keeps four sources; of four nodes these are all.
    leaves = [torch.randn(3, 4, 64, requires_grad=True) for _ in range(3)]
    leaves.append(torch.randn(4, 4, requires_grad=True))
    dense, sparse = graph._dense(*leaves), graph._sparse(*leaves)
    torch.testing.assert_close(sparse.flatten(), dense.flatten(), rtol=1e-4, atol=1e-5)
    torch.manual_seed(0)
    expected = graph._train(graph._dense, leaves, leaves[3])()
    torch.manual_seed(0)
    found = graph._train(graph._sparse, leaves, leaves[3])()
    assert len(found) == len(expected) == 4
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_the_bare_recurrence_is_that_of_the_model():
    network = Seq2SeqLatentGNN(3, 8, 5, 12).network
    bare = BareRecurrence(8)
    for ours, theirs in (
        (network.temporal_encoder.lstm, bare.encoder),
        (network.decoder.lstm, bare.decoder),
    ):
        sizes = [parameter.shape for parameter in ours.parameters()]
        assert [parameter.shape for parameter in theirs.parameters()] == sizes
        assert ours.batch_first == theirs.batch_first
    assert bare(torch.randn(10, 12, 8), torch.randn(10, 12, 1)).shape == (10, 12)


@pytest.mark.parametrize(("threads", "shown"), [(1, False), (2, True)])
def test_the_published_code_is_compared_on_as_many_cores(monkeypatch, threads, shown):
    times = {"bare": [1.0, 2.0], "ours": [0.02, 0.01], "per window": [0.5, 1.0]}
    monkeypatch.setattr(seq2seq, "interleave", lambda *_, **__: times)
    (table,) = seq2seq.measure(Settings(threads=threads, quick=True))
    rows = {row.what: row.cells() for row in table.rows}
    assert rows["training to the bare recurrence"][1:4] == ("15 ms", "1.50 s", "0.01×")
    assert rows["training to the bare recurrence, one graph per window"][3] == "0.50×"
    assert ("training to the published code" in rows) == shown
    if shown:  # 2 windows per step: 100 and 200 windows/s
        assert rows["training to the published code"][3] == f"{150 / 5.5:.2f}×"
        assert rows["inference to the published code"][3] == "7.50×"


@pytest.mark.tsl
@pytest.mark.parametrize(
    ("name", "inputs", "learning_rate"),
    [
        ("latentgnn", {"x", "u", "u_future", "input_mask"}, 0.005),
        ("gwnet", {"x", "u", "edge_index", "edge_weight"}, 0.001),
        ("agcrn", {"x", "u"}, 0.003),
        ("dcrnn", {"x", "u", "edge_index", "edge_weight"}, 0.001),
    ],
)
def test_models_are_those_of_the_benchmark(make_cfg, name, inputs, learning_rate):
    model, batch, optimizer = models.build(name, 2, 9, 20, torch.device("cpu"))
    assert set(batch) == inputs
    assert model(**batch).shape == (2, 12, 9, 1)
    assert optimizer.param_groups[0]["lr"] == learning_rate
    hparams = make_cfg(dataset="la", model=name).model.hparams
    if name == "latentgnn":
        network = model.network
        assert network.graph_at == hparams.graph_at == "state"
        assert network.temporal_encoder.lstm.hidden_size == hparams.hidden_size
        assert network.node_embedding.shape == (9, hparams.node_emb_size)
    elif name == "gwnet":
        assert len(model.tconvs) == hparams.n_layers
        assert model.input_encoder.out_features == hparams.hidden_size


@pytest.mark.tsl
@pytest.mark.parametrize("name", ["latentgnn", "gwnet", "agcrn", "dcrnn"])
def test_a_training_step_trains_and_inference_does_not(monkeypatch, name):
    built = []
    build = models.build

    def spy(*arguments):
        built.append(build(*arguments))
        return built[-1]

    monkeypatch.setattr(models, "build", spy)
    arguments = {"name": name, "batch": 2, "nodes": 9, "edges": 20, "device": torch.device("cpu")}
    step, infer = models.training_step(**arguments), models.inference(**arguments)
    before = [[p.detach().clone() for p in model.parameters()] for model, _, _ in built]
    step()
    prediction = infer()
    assert not prediction.requires_grad
    assert built[0][0].training
    assert not built[1][0].training
    (trained, kept) = (
        [not torch.equal(p, old) for p, old in zip(model.parameters(), values, strict=True)]
        for (model, _, _), values in zip(built, before, strict=True)
    )
    assert sum(trained) > len(trained) / 2
    assert not any(kept)


@pytest.mark.parametrize("static", [3, "full"])
def test_the_layer_step_leaves_gradients_of_one_pass(monkeypatch, static):
    seen = []
    backward = torch.Tensor.backward
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: (seen.append(loss), backward(loss)))
    step = layer_step(2, 10, static, torch.device("cpu"))
    step()
    step()
    assert seen[0].item() == seen[1].item() > 0
    assert seen[0].requires_grad


def test_masked_mae_counts_valid_readings_only():
    prediction = torch.tensor([1.0, 2.0, 100.0, 4.0])
    target = torch.tensor([2.0, 5.0, 0.0, 4.0])
    valid = torch.tensor([True, True, False, True])
    assert masked_mae(prediction, target, valid).item() == pytest.approx(4 / 3)


@pytest.mark.parametrize(("nodes", "edges"), [(2, 2), (5, 5), (6, 30), (207, 1515)])
def test_random_graph(nodes, edges):
    edge_index, edge_weight = random_graph(nodes, edges)
    pairs = set(map(tuple, edge_index.T.tolist()))
    assert len(pairs) == edges == edge_index.size(1) == edge_weight.size(0)
    assert all(source != target for source, target in pairs)
    assert {source for source, _ in pairs} == {target for _, target in pairs} == set(range(nodes))
    assert 0.1 <= edge_weight.min() <= edge_weight.max() <= 1


@pytest.mark.parametrize(("nodes", "edges"), [(1, 0), (5, 4), (5, 21)])
def test_random_graph_refuses_what_cannot_be(nodes, edges):
    with pytest.raises(ValueError, match=r"'(nodes|edges)' must be .* \(got"):
        random_graph(nodes, edges)


def test_repeats_win_over_quick_and_usual_rounds():
    assert Settings().rounds(9) == 9
    assert Settings(quick=True).rounds(9) == 2
    assert Settings(quick=True, repeats=4).rounds(9) == 4


@pytest.mark.tsl
def test_every_section_runs_end_to_end(tmp_path, capsys):
    out = tmp_path / "speed.md"
    speed.main(["--quick", "--threads", "1", "--repeats", "1", "--out", str(out)])
    text = out.read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() == text.strip()
    assert text.startswith("## Speed\n")
    for fact in (
        "`python -m benchmarks speed --quick --threads 1 --repeats 1 --out ",
        f"torch {torch.__version__}",
        "threads 1",
        "Quick run on small shapes",
    ):
        assert fact in text
    titles = [line for line in text.splitlines() if line.startswith("### ")]
    assert [title.split()[1] for title in titles] == [
        "Graph",
        "Graph",
        "Large",
        "Memory",
        "A",
        "Sequence-to-sequence",
        "Models",
        "Latency",
    ]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    measured = {row[0]: row[3] for row in rows if row[3].endswith(("×", "GiB"))}
    for what in (
        "forward",
        "forward + backward, static learned",
        "part: `q @ k.mT`, to attention forward",
        "part: `scores.topk(k)`, to attention forward",
        "time to `q @ k.mT`, static full",
        "training to the bare recurrence",
        "inference to the bare recurrence",
        "eager",
        "exported",
        *(
            f"{what} to {model}"
            for what, model in itertools.product(
                ("training", "inference", "peak memory of training"),
                ("GraphWaveNetModel", "AGCRNModel", "DCRNNModel"),
            )
        ),
    ):
        assert float(measured[what].rstrip("×")) > 0
    assert [row[5] for row in rows if row[0] == "forward"] == ["–", "–"]


def test_one_section_alone_writes_no_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = []

    def measure(settings):
        asked.append(settings)
        return [Table("Fake", "note", [Row("x", measured=Spread.of([2.0]), target=Target(1.0))])]

    monkeypatch.setitem(speed.SECTIONS, "graph", measure)
    speed.main(["graph", "--repeats", "3"])
    assert asked == [Settings(2, 3, torch.device("cpu"), quick=False)]
    assert torch.get_num_threads() == 2
    assert "| x | – | – | 2.00× | – | ≤ 1× | **no** |" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["layers"], "invalid choice: 'layers'"),
        (["--threads", "0"], "must be an int >= 1 (got '0')"),
        (["--repeats", "-1"], "must be an int >= 1 (got '-1')"),
        (["--repeats", "many"], "must be an int >= 1 (got 'many')"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
        (["--out", "nowhere/speed.md"], "'--out' must be in a folder that exists"),
        (["--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_measured(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(speed, "report", lambda *_: pytest.fail("measured"))
    with pytest.raises(SystemExit) as failure:
        speed.main(arguments)
    assert failure.value.code == 2
    assert message in capsys.readouterr().err


def test_a_gpu_that_is_not_there_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        speed.main(["--device", "cuda"])
    assert "'--device' must be cpu where there is no GPU (got cuda)." in capsys.readouterr().err


def test_latency_is_median_and_99th_percentile():
    seconds = [0.001 * (i + 1) for i in range(101)]
    assert format_latency(seconds[::-1]) == "51 / 100 ms"


def test_gpu_measures_everything(monkeypatch):
    monkeypatch.setattr(gpu, "count_waits", lambda run: run() or 0)
    settings = Settings(1, 1, torch.device("cpu"), quick=True)
    tables = list(gpu.measure(settings, gpu.Clock(600), list(gpu.TABLES)))
    texts = "\n".join(table.to_markdown() for table in tables)
    assert len(tables) == 6
    assert "failed" not in texts
    assert "left out" not in texts
    assert all(table.rows for table in tables)


def test_gpu_writes_down_what_fails_and_what_there_is_no_time_for():
    def fail():
        raise RuntimeError("no | luck\nat all")

    assert gpu.Clock(600).rows("this", fail) == [Row("this", "failed: RuntimeError: no / luck")]
    assert gpu.Clock(-1).rows("this", fail) == [Row("this", "left out: time is over")]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_gpu_needs_one(capsys):
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "a GPU with CUDA must be there (got none)" in capsys.readouterr().err
