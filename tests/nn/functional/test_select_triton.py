"""The kernel of the selection: on a GPU, or else in Triton's interpreter, which a process of its own starts with."""

import os
import subprocess
import sys

from tsl_latentgnn.nn import LatentCorrelationGCN
from tsl_latentgnn.nn.functional import select as module

import pytest
import torch
from test_select import draw, reference

pytest.importorskip("triton", reason="the kernel needs Triton")
from tsl_latentgnn.nn.functional import select_triton

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
on_kernel = pytest.mark.skipif(
    not (GPU or select_triton.INTERPRETED), reason="runs on a GPU or in the interpreter"
)


@pytest.mark.skipif(GPU or select_triton.INTERPRETED, reason="the tests below run by themselves")
def test_the_kernel_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    assert "passed" in run.stdout


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of 16 by 16, so that a small graph has several; to be split among up to so many programs."""
    monkeypatch.setattr(select_triton, "BLOCK_TARGETS", 64 if GPU else 16)
    monkeypatch.setattr(select_triton, "BLOCK_SOURCES", 16)

    def split(programs):
        monkeypatch.setattr(select_triton, "MAX_SPLITS", programs)

    return split


def check(query, key, k, **options):
    """Compare with a sort; the scores of sources that are there count."""
    query, key = query.to(DEVICE), key.to(DEVICE)
    options = {
        name: x.to(DEVICE) if isinstance(x, torch.Tensor) else x for name, x in options.items()
    }
    assert select_triton.serves(query, key, k)
    scores, sources = module.select_sources(query, key, k, **options)
    options.pop("block_bytes", None)
    options = {name: x.cpu() if isinstance(x, torch.Tensor) else x for name, x in options.items()}
    all_scores, expected = reference(query.cpu(), key.cpu(), k, **options)
    assert torch.equal(sources.cpu(), expected)
    assert scores.dtype == torch.float32
    mask = options.get("mask")
    present = torch.ones_like(expected, dtype=torch.bool)
    if mask is not None:
        present = mask.gather(1, expected.flatten(1)).view(expected.shape)
    ours, theirs = scores.cpu().double()[present], all_scores.gather(2, expected)[present]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@on_kernel
@pytest.mark.parametrize(
    ("graphs", "nodes", "channels", "k", "splits", "ties", "options"),
    [
        (2, 35, 3, 8, 1, True, "self_loops bias mask"),
        (1, 40, 20, 4, 4, False, ""),
        (1, 5, 16, 5, 4, False, "self_loops bias mask"),
        (1, 33, 1, 16, 2, True, "self_loops"),
        (1, 40, 3, 4, 1, False, "bias mask"),
    ],
)
def test_equals_a_sort(graphs, nodes, channels, k, splits, ties, options, small_tiles):
    small_tiles(splits)
    query, key = draw(graphs, nodes, channels, ties, torch.float32)
    given = {
        "self_loops": True,
        "bias": torch.randint(-1, 2, (nodes, nodes)).float(),
        "mask": torch.rand(graphs, nodes) < 0.3,
    }
    check(query, key, k, scale=-0.5, **{name: given[name] for name in options.split()})


@on_kernel
@pytest.mark.parametrize(
    ("dtype", "k"), [(torch.float32, 5), (torch.float16, 32), (torch.bfloat16, 32)]
)
def test_dtypes_and_full_tiles(dtype, k):
    if dtype not in select_triton.DTYPES:
        pytest.skip("the interpreter multiplies the bits of bfloat16")
    query, key = draw(1, 66, 6, dtype=dtype)
    check(query, key, k, bias=torch.randint(-2, 3, (66, 66)).to(dtype), self_loops=True)


@on_kernel
def test_equal_scores_and_few_sources_that_may_send(small_tiles):
    small_tiles(2)
    query = key = torch.zeros(1, 24, 1)
    check(query, key, 7)
    mask = torch.zeros(1, 24, dtype=torch.bool)
    mask[0, 19] = mask[0, 3] = True
    check(query, key, 7, mask=mask, self_loops=True)
    check(query, key, 7, mask=mask)


@on_kernel
def test_a_slot_that_hides_all_others(small_tiles):
    # The best sources are 16 apart: one slot holds them all.
    small_tiles(1)
    query, key = torch.ones(1, 48, 1), torch.zeros(1, 48, 1)
    key[0, 3::16, 0] = torch.tensor([1.0, 3.0, 2.0])
    check(query, key, 2)
    check(query, key, 4)


@on_kernel
def test_parts_of_graphs_and_targets_fit_into_the_budget(small_tiles):
    small_tiles(1)
    query, key = draw(2, 20, dtype=torch.float32)
    row = 3 * 4 * 16
    for rows in (16, 20, 40):
        check(query, key, 3, block_bytes=row * rows, self_loops=True)


@on_kernel
def test_numbers_that_are_none_select_something(small_tiles):
    small_tiles(2)
    key = torch.full((1, 40, 2), torch.nan, device=DEVICE)
    _, sources = module.select_sources(key, key, 5)
    assert sources.min() >= 0
    assert sources.max() < 40
    assert all(len(set(row)) == 5 for row in sources[0].tolist())


@on_kernel
def test_compiled_in_one_graph():
    query, key = (x.to(DEVICE) for x in draw(1, 20, dtype=torch.float32))
    compiled = torch.compile(module.select_sources, fullgraph=True, backend="aot_eager")
    eager = module.select_sources(query, key, 3)
    assert all(map(torch.equal, compiled(query, key, 3), eager))


@on_kernel
@pytest.mark.parametrize("autocast", [False, True])
def test_a_layer_is_the_same_without_the_kernel(autocast, monkeypatch):
    half = torch.bfloat16 if GPU else torch.float16
    layer = LatentCorrelationGCN(8, 8, 20, 4, static="full").to(DEVICE)
    torch.nn.init.normal_(layer.learner.correlation)
    x = torch.randn(2, 20, 8, device=DEVICE)
    results = []
    for served in (True, False):
        if not served:
            monkeypatch.setattr(select_triton, "serves", lambda *_: False)
        layer.zero_grad()
        with torch.autocast(DEVICE, half, enabled=autocast):
            out = layer(x)
        out.float().square().sum().backward()
        results.append([out, *(weight.grad for weight in layer.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "dtype", "k"),
    [
        ((1, 40, 4), torch.float64, 3),
        ((1, 40, 4), torch.float32, 33),
        ((1, 40, 129), torch.float32, 3),
        ((1, 40, 257), torch.bfloat16, 3),
        ((0, 40, 4), torch.float32, 3),
    ],
)
def test_what_the_kernel_leaves_to_others(shape, dtype, k):
    query = torch.zeros(shape, dtype=dtype, device=DEVICE)
    assert not select_triton.serves(query, query, k)
    assert not select_triton.serves(query.to("meta"), query.to("meta"), 3)
