from tsl_latentgnn.nn.functional import edges
from tsl_latentgnn.nn.functional.edges import edge_score, edge_sum

import pytest
import torch


@pytest.fixture(params=["bags", "no private operator", "no bags"])
def ways(request, monkeypatch):
    """Every way to walk the edges: that of this machine and those of others."""
    if request.param == "no bags":
        monkeypatch.setattr(edges, "BAG_DEVICES", ())
    elif request.param == "no private operator":
        monkeypatch.setattr(edges, "BAG_DOT", None)
    else:
        assert edges.BAG_DOT is not None


def score_by_loops(target, source, neighbors, scale=1.0, bias=None, columns=None):
    """Scores edge by edge; differentiable."""
    graphs, num_nodes, k = neighbors.shape
    scores = []
    for g in range(graphs):
        for i in range(num_nodes):
            for e in range(k):
                j = int(neighbors[g, i, e])
                for h in range(target.size(2)):
                    score = scale * (target[g, i, h] * source[g, j, h]).sum()
                    if bias is not None:
                        score = score + bias[i, int(columns[g, i, e])]
                    scores.append(score)
    return torch.stack(scores).view(graphs, num_nodes, k, -1)


def sum_by_loops(weight, source, neighbors):
    """Sums edge by edge; differentiable."""
    graphs, num_nodes, k, heads = weight.shape
    sums = []
    for g in range(graphs):
        for i in range(num_nodes):
            for h in range(heads):
                terms = [weight[g, i, e, h] * source[g, neighbors[g, i, e], h] for e in range(k)]
                sums.append(torch.stack(terms).sum(0))
    return torch.stack(sums).view(graphs, num_nodes, heads, -1)


def draw(graphs=2, num_nodes=5, heads=1, k=3, d=4, width=None):
    """Factors, weights, neighbors (also the same one twice), and with ``width`` a bias and its columns."""
    torch.manual_seed(0)
    target, source = torch.randn(2, graphs, num_nodes, heads, d, dtype=torch.double)
    weight = torch.randn(graphs, num_nodes, k, heads, dtype=torch.double)
    neighbors = torch.randint(0, num_nodes, (graphs, num_nodes, k))
    neighbors[0, 0] = 0
    inputs = [x.requires_grad_() for x in (target, source, weight)]
    bias = columns = None
    if width is not None:
        bias = torch.randn(num_nodes, width, dtype=torch.double, requires_grad=True)
        columns = torch.randint(0, width, (graphs, num_nodes, k))
    return *inputs, neighbors, bias, columns


SIZES = [
    {},
    {"heads": 3},
    {"width": 5},
    {"width": 2, "heads": 2},
    {"width": 9, "k": 7, "heads": 2},
    {"graphs": 1, "num_nodes": 1, "k": 1, "d": 1, "width": 1},
    {"graphs": 3, "num_nodes": 2, "k": 1, "d": 1, "heads": 2, "width": 1},
]


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_scores_match_loops(sizes):
    target, source, _, neighbors, bias, columns = draw(**sizes)
    inputs = [target, source] if bias is None else [target, source, bias]
    ours = edge_score(target, source, neighbors, 0.7, bias, columns)
    expected = score_by_loops(target, source, neighbors, 0.7, bias, columns)
    torch.testing.assert_close(ours, expected)
    cotangent = torch.randn_like(expected)
    gradients = torch.autograd.grad(ours, inputs, cotangent)
    for a, b in zip(gradients, torch.autograd.grad(expected, inputs, cotangent), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sums_match_loops(sizes):
    _, source, weight, neighbors, _, _ = draw(**sizes)
    ours, expected = edge_sum(weight, source, neighbors), sum_by_loops(weight, source, neighbors)
    torch.testing.assert_close(ours, expected)
    cotangent = torch.randn_like(expected)
    gradients = torch.autograd.grad(ours, [weight, source], cotangent)
    expected = torch.autograd.grad(expected, [weight, source], cotangent)
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize("heads", [1, 2])
def test_gradcheck(heads):
    sizes = {"num_nodes": 4, "heads": heads, "k": 2, "d": 3, "width": 3}
    target, source, weight, neighbors, bias, columns = draw(**sizes)
    assert torch.autograd.gradcheck(lambda t, s: edge_score(t, s, neighbors), (target, source))
    assert torch.autograd.gradcheck(
        lambda t, s, b: edge_score(t, s, neighbors, -0.3, b, columns), (target, source, bias)
    )
    assert torch.autograd.gradcheck(lambda w, s: edge_sum(w, s, neighbors), (weight, source))


@pytest.mark.usefixtures("ways")
def test_they_are_each_others_backward():
    target, source, weight, neighbors, _, _ = draw(heads=2)
    to_target, to_source = torch.autograd.grad(
        edge_score(target, source, neighbors), [target, source], weight.detach()
    )
    torch.testing.assert_close(to_target, edge_sum(weight, source, neighbors))
    # The sum over the sources of <s_j, sum of w_ij t_i> is that over the edges of w_ij <t_i, s_j>.
    inner = (weight * edge_score(target, source, neighbors)).sum()
    torch.testing.assert_close((to_source * source).sum(), inner)
    to_weight = torch.autograd.grad(edge_sum(weight, source, neighbors), weight, target.detach())[0]
    torch.testing.assert_close(to_weight, edge_score(target, source, neighbors))


@pytest.mark.usefixtures("ways")
def test_by_hand():
    # Two targets with two sources each, of a single channel.
    target = torch.tensor([2.0, 3.0]).view(1, 2, 1, 1)
    source = torch.tensor([5.0, 7.0]).view(1, 2, 1, 1)
    neighbors = torch.tensor([[[1, 0], [1, 1]]])
    bias = torch.tensor([[100.0, 200.0, 300.0], [400.0, 500.0, 600.0]], requires_grad=True)
    columns = torch.tensor([[[2, 0], [1, 1]]])
    scores = edge_score(target, source, neighbors, 10.0, bias, columns)
    assert scores.flatten().tolist() == [440.0, 200.0, 710.0, 710.0]
    scores.sum().backward()
    assert bias.grad.tolist() == [[1.0, 0.0, 1.0], [0.0, 2.0, 0.0]]
    weight = torch.tensor([0.5, 2.0, 1.0, -1.0]).view(1, 2, 2, 1)
    assert edge_sum(weight, source, neighbors).flatten().tolist() == [13.5, 0.0]


def test_known_scores_are_returned_and_have_the_gradient_of_the_unknown():
    target, source, _, neighbors, bias, columns = draw(width=4)
    inputs = [target, source, bias]
    known = torch.randn(2, 5, 3, dtype=torch.double, requires_grad=True)
    scores = edge_score(target, source, neighbors, 0.3, bias, columns, known)
    assert torch.equal(scores, known.unsqueeze(-1))
    cotangent = torch.randn_like(scores)
    gradients = torch.autograd.grad(scores, [*inputs, known], cotangent, allow_unused=True)
    assert gradients[3] is None
    expected = score_by_loops(target, source, neighbors, 0.3, bias, columns)
    expected = torch.autograd.grad(expected, inputs, cotangent)
    for a, b in zip(gradients[:3], expected, strict=True):
        torch.testing.assert_close(a, b)

    # What is done to the result in place does not reach them.
    before = known.detach().clone()
    with torch.no_grad():
        edge_score(target, source, neighbors, 0.3, bias, columns, known).zero_()
    assert torch.equal(known, before)


def test_a_gradient_is_computed_only_where_it_is_asked_for():
    target, source, weight, neighbors, bias, columns = draw(width=4)
    inputs = {"target": target, "source": source, "bias": bias}
    for name, wanted in inputs.items():
        given = {n: x if n == name else x.detach() for n, x in inputs.items()}
        score = edge_score(**given, neighbors=neighbors, columns=columns).sum()
        expected = score_by_loops(**given, neighbors=neighbors, columns=columns).sum()
        torch.testing.assert_close(
            torch.autograd.grad(score, wanted)[0], torch.autograd.grad(expected, wanted)[0]
        )
    for wanted, other in ((weight, source), (source, weight)):
        total = edge_sum(*(x if x is wanted else x.detach() for x in (weight, source)), neighbors)
        assert torch.autograd.grad(total.sum(), [wanted, other], allow_unused=True)[1] is None


@pytest.mark.usefixtures("ways")
def test_a_source_without_edges_has_gradient_zero():
    target, source, weight, _, _, _ = draw()
    neighbors = torch.full((2, 5, 3), 2)
    for out in (edge_score(target, source, neighbors), edge_sum(weight, source, neighbors)):
        gradient = torch.autograd.grad(out.sum(), source)[0]
        assert gradient[:, [0, 1, 3, 4]].abs().sum() == 0
        assert (gradient[:, 2] != 0).all()


@pytest.mark.usefixtures("ways")
def test_inputs_of_any_strides():
    target, source, weight, neighbors, bias, columns = draw(heads=2, width=4)

    def strided(x):
        return x.detach().mT.contiguous().mT

    ours = edge_score(
        strided(target), strided(source), strided(neighbors), 1.0, strided(bias), strided(columns)
    )
    torch.testing.assert_close(ours, score_by_loops(target, source, neighbors, 1.0, bias, columns))
    ours = edge_sum(strided(weight), strided(source), strided(neighbors))
    torch.testing.assert_close(ours, sum_by_loops(weight, source, neighbors))
    # The gradient of a sum is an expanded scalar.
    gradient = torch.autograd.grad(edge_sum(weight, source, neighbors).sum(), weight)[0]
    expected = torch.autograd.grad(sum_by_loops(weight, source, neighbors).sum(), weight)[0]
    torch.testing.assert_close(gradient, expected)


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_accumulated_in_32_bits(dtype):
    # In half precision a sum of ones stops where one is less than half a unit in the last place.
    d = 4099
    ones = torch.ones(1, 2, 1, d, dtype=dtype, requires_grad=True)
    neighbors = torch.zeros(1, 2, 1, dtype=torch.long)
    scores = edge_score(ones, ones, neighbors)
    assert scores.dtype == torch.float32
    assert scores.flatten().tolist() == [d, d]
    assert torch.autograd.grad(scores.sum(), ones)[0].dtype == dtype

    bias = torch.full((2, 3), 0.5, dtype=dtype, requires_grad=True)
    biased = edge_score(ones, ones, neighbors, 1.0, bias, neighbors)
    assert biased.flatten().tolist() == [d + 0.5, d + 0.5]
    gradient = torch.autograd.grad(biased.sum(), bias)[0]
    assert gradient.dtype == dtype
    assert gradient.tolist() == [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]

    k = 2048 + 2  # all of weight one, from a single node
    weight = torch.ones(1, 2, k, 1, dtype=dtype, requires_grad=True)
    source = torch.full((1, 2, 1, 1), 0.5, dtype=dtype, requires_grad=True)
    sums = edge_sum(weight, source, torch.zeros(1, 2, k, dtype=torch.long))
    assert sums.dtype == dtype
    assert sums.flatten().tolist() == [torch.tensor(k / 2).to(dtype).item()] * 2
    gradients = torch.autograd.grad(sums.sum(), [weight, source])
    assert [gradient.dtype for gradient in gradients] == [dtype, dtype]
    assert gradients[1].flatten().tolist() == [torch.tensor(2.0 * k).to(dtype).item(), 0.0]


def test_nothing_of_the_size_of_edges_times_channels_is_kept():
    torch.manual_seed(0)
    G, N, k, d = 2, 20, 10, 16
    target, source = torch.randn(2, G, N, 1, d, requires_grad=True)
    neighbors = torch.randint(0, N, (G, N, k))
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: sizes.append(x.numel()) or x, lambda x: x
    ):
        edge_sum(edge_score(target, source, neighbors), source, neighbors)
    assert 0 < max(sizes) <= G * N * max(k, d)


def test_deterministic():
    torch.manual_seed(0)
    source = torch.randn(1, 50, 2, 8, requires_grad=True)
    weight = torch.rand(1, 50, 30, 2)
    neighbors = torch.randint(0, 50, (1, 50, 30))
    first = torch.autograd.grad(edge_sum(weight, source, neighbors).square().sum(), source)[0]
    for _ in range(3):
        again = torch.autograd.grad(edge_sum(weight, source, neighbors).square().sum(), source)[0]
        assert torch.equal(again, first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.double])
def test_the_ways_agree(dtype, monkeypatch):
    torch.manual_seed(0)
    target, source, weight = torch.randn(40, 8), torch.randn(30, 8), torch.randn(40, 6)
    target, source, weight = target.to(dtype), source.to(dtype), weight.to(dtype)
    rows = torch.randint(0, 30, (40, 6))

    def walk():
        return (
            edges._bag_dot(target, source, rows),
            edges._bag_sum(weight, source, rows),
            edges._bag_sum_back(weight, target, rows, 30),
        )

    bags = walk()
    monkeypatch.setattr(edges, "BAG_DEVICES", ())
    torch.testing.assert_close(walk(), bags)


def test_a_bias_needs_its_columns():
    factors = torch.ones(1, 2, 1, 3), torch.ones(1, 2, 1, 3)
    neighbors = torch.zeros(1, 2, 1, dtype=torch.long)
    with pytest.raises(ValueError, match="'columns' must be given with 'bias'"):
        edge_score(*factors, neighbors, bias=torch.ones(2, 2))
