import copy
import math

from tsl_latentgnn.nn import GraphLearner, LatentCorrelationGCN, LatentGraphEncoder
from tsl_latentgnn.nn.functional.select import candidate_table

import pytest
import torch
from references import convolve, convolve_layers, randomize, run_layer

# Node 3 may hear itself alone, and node 4 nobody but itself where that is always so.
EDGES = torch.tensor([[1, 2, 0, 3, 4, 0, 3], [0, 0, 1, 1, 1, 2, 3]])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("norm", [None, "layer", "batch", "graph"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_values_match_a_loop(norm, num_layers, masked):
    encoder = LatentGraphEncoder(4, 5, num_layers, norm=norm, k_neighbors=3, heads=2).double()
    randomize(encoder)
    h = torch.randn(3, 5, 4, dtype=torch.double)
    mask = None
    if masked:
        mask = torch.rand(3, 5) > 0.3
        mask[1] = False  # nobody is there
        mask[2] = True
    out, graphs = encoder(h, mask)
    expected, adjacencies = convolve_layers(encoder, h, mask)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close([graph.to_dense() for graph in graphs], adjacencies)


def draw_steps(steps=4, masked=True):
    """Windows ``[3, T, 5, 4]`` and who is there: somebody never, nobody at some step or at none at all."""
    h = torch.randn(3, steps, 5, 4, dtype=torch.double)
    if not masked:
        return h, None
    mask = torch.rand(3, steps, 5) > 0.4
    mask[0, :, 3] = False
    mask[1, 0] = False
    mask[2] = False
    return h, mask


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("norm", [None, "layer", "batch", "graph"])
@pytest.mark.parametrize("graph_per", ["step", "window"])
@pytest.mark.parametrize(
    "options",
    [
        {"k_neighbors": 3, "heads": 2},
        {"k_neighbors": 2, "candidates": EDGES},
        {"candidates": EDGES, "add_self_loops": False, "static": 2, "num_layers": 1},
        {"k_neighbors": 2, "dynamic": False},
    ],
    ids=lambda options: ", ".join(options),
)
def test_windows_match_a_loop(options, graph_per, norm, masked):
    encoder = LatentGraphEncoder(4, 5, norm=norm, graph_per=graph_per, **options).double()
    randomize(encoder)
    h, mask = draw_steps(masked=masked)
    out, graphs = encoder(h, mask)
    expected, adjacencies = convolve_layers(encoder, h, mask)
    assert graphs[0].batch_shape == ((3,) if graph_per == "window" else (3, 4))
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close([graph.to_dense() for graph in graphs], adjacencies)


def test_the_graph_of_a_window_by_hand():
    # One channel; scores are products of the means, which the masked steps do not enter.
    encoder = LatentGraphEncoder(
        1, 3, 1, graph_per="window", k_neighbors=2, static=None, bias=False
    )
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.fill_(1.0)
    h = torch.tensor([[[1.0, 2.0, 7.0], [3.0, 0.0, -1.0]]]).unsqueeze(-1)
    mask = torch.tensor([[[True, True, False], [True, False, True]]])
    _, (*_, graph) = encoder(h, mask)
    # Means 2, 2 and -1: the last hears whoever is the least unlike it, the first of equals.
    assert graph.neighbors.tolist() == [[[0, 1], [1, 0], [2, 0]]]
    even, odd = 0.5, 1 / (1 + math.exp(3.0))
    expected = torch.tensor([[[even, even], [even, even], [1 - odd, odd]]])
    torch.testing.assert_close(graph.weights, expected)
    out, _ = encoder(h, mask)
    # At the first step the last node is away, and the second one at the second step.
    messages = torch.tensor([[1.5, 1.5, 1.0], [3.0, 3.0, -(1 - odd) + 3 * odd]])
    torch.testing.assert_close(out[0, ..., 0], messages.clamp(min=0) + h[0, ..., 0])


@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize("masked", [False, True])
def test_a_window_of_equal_steps_has_the_graph_of_each(masked, steps):
    window = randomize(LatentGraphEncoder(4, 5, graph_per="window", k_neighbors=3).double())
    step = LatentGraphEncoder(4, 5, k_neighbors=3).double()
    step.load_state_dict(window.state_dict())
    h, mask = draw_steps(1, masked)
    # Who is never there has no features to be scored with: its own sources may be others, that of nobody else.
    there = torch.ones(3, 5, dtype=torch.bool) if mask is None else mask[:, 0]
    expected, (*_, by_step) = step(h, mask)
    h = h.expand(-1, steps, -1, -1)
    mask = None if mask is None else mask.expand(-1, steps, -1)
    out, (*_, graph) = window(h, mask)
    for t in range(steps):
        torch.testing.assert_close(out[:, t][there], expected[:, 0][there])
    dense = by_step[:, 0].to_dense()
    torch.testing.assert_close(graph.to_dense()[there], dense[there])
    # Steps without windows have a graph each, whatever is asked for.
    single, (*_, single_graph) = window(h[:, 0], None if mask is None else mask[:, 0])
    torch.testing.assert_close(single, expected[:, 0])
    torch.testing.assert_close(single_graph.to_dense(), dense)


@pytest.mark.parametrize("norm", [None, "layer", "batch", "graph"])
def test_the_order_of_the_steps_does_not_matter_to_the_graph_of_a_window(norm):
    encoder = LatentGraphEncoder(4, 5, norm=norm, graph_per="window", k_neighbors=3).double()
    randomize(encoder)
    h, mask = draw_steps(6)
    order = torch.randperm(6)
    out, (*_, graph) = encoder(h, mask)
    mixed, (*_, mixed_graph) = encoder(h[:, order], mask[:, order])
    torch.testing.assert_close(mixed, out[:, order])
    torch.testing.assert_close(mixed_graph.to_dense(), graph.to_dense())


@pytest.mark.parametrize("norm", [None, "layer", "graph"])
@pytest.mark.parametrize("graph_per", ["step", "window"])
def test_windows_of_a_batch_do_not_mix(graph_per, norm):
    encoder = LatentGraphEncoder(4, 5, norm=norm, graph_per=graph_per, k_neighbors=3).double()
    randomize(encoder)
    h, mask = draw_steps()
    out, (*_, graph) = encoder(h, mask)
    for b in range(3):
        alone, (*_, alone_graph) = encoder(h[b : b + 1], mask[b : b + 1])
        torch.testing.assert_close(alone, out[b : b + 1])
        torch.testing.assert_close(alone_graph.to_dense(), graph[b : b + 1].to_dense())


@pytest.mark.parametrize("graph_per", ["step", "window"])
@pytest.mark.parametrize("candidates", [None, EDGES])
def test_gradients(graph_per, candidates):
    encoder = LatentGraphEncoder(
        2, 5, 2, norm="graph", graph_per=graph_per, k_neighbors=2, candidates=candidates
    )
    randomize(encoder.double())
    names = [name for name, _ in encoder.named_parameters()]
    _, mask = draw_steps(3)

    def run(h, *parameters):
        weights = dict(zip(names, parameters, strict=True))
        out, (*_, graph) = torch.func.functional_call(encoder, weights, (h, mask[:2]))
        return out, graph.weights

    h = torch.randn(2, 3, 5, 2, dtype=torch.double, requires_grad=True)
    parameters = [p.detach().requires_grad_() for p in encoder.parameters()]
    assert torch.autograd.gradcheck(run, (h, *parameters), fast_mode=True)


@pytest.mark.parametrize("candidates", [None, EDGES])
def test_compile(candidates):
    torch.compiler.reset()
    encoder = LatentGraphEncoder(4, 5, graph_per="window", k_neighbors=2, candidates=candidates)
    randomize(encoder.double())
    h, mask = draw_steps()
    compiled = torch.compile(encoder, backend="aot_eager", fullgraph=True)
    for sources in (None, mask):
        (out, graphs), (expected, expected_graphs) = compiled(h, sources), encoder(h, sources)
        torch.testing.assert_close(out, expected)
        for graph, expected_graph in zip(graphs, expected_graphs, strict=True):
            torch.testing.assert_close(graph.weights, expected_graph.weights)
            assert torch.equal(graph.neighbors, expected_graph.neighbors)


@pytest.mark.parametrize("norm", ["layer", "batch", "graph"])
@pytest.mark.parametrize("graph_per", ["step", "window"])
@pytest.mark.parametrize("candidates", [None, EDGES])
def test_absent_nodes_change_no_other_in_windows(norm, graph_per, candidates):
    encoder = LatentGraphEncoder(
        4, 5, 2, norm=norm, graph_per=graph_per, k_neighbors=2, candidates=candidates
    )
    randomize(encoder.double())
    h, mask = draw_steps()
    out, (*_, graph) = encoder(h, mask)
    changed, (*_, changed_graph) = encoder(h.masked_fill(~mask.unsqueeze(-1), 1e6), mask)
    assert torch.equal(changed[mask], out[mask])
    there = mask.any(1) if graph_per == "window" else mask
    assert torch.equal(changed_graph.neighbors[there], graph.neighbors[there])
    assert torch.equal(changed_graph.weights[there], graph.weights[there])


@pytest.mark.parametrize("norm", ["layer", "batch", "graph"])
def test_absent_nodes_change_no_other(norm):
    encoder = randomize(LatentGraphEncoder(4, 5, 2, norm=norm, k_neighbors=2).double())
    h = torch.randn(3, 5, 4, dtype=torch.double)
    mask = torch.rand(3, 5) > 0.4
    out, _ = encoder(h, mask)
    changed, _ = encoder(h.masked_fill(~mask.unsqueeze(-1), 1e6), mask)
    assert torch.equal(changed[mask], out[mask])


def test_batch_norm_keeps_running_statistics_of_the_nodes_that_are_there():
    encoder = LatentGraphEncoder(4, 5, 1, norm="batch", k_neighbors=2).double()
    h = torch.randn(3, 5, 4, dtype=torch.double)
    mask = torch.rand(3, 5) > 0.4
    rows = convolve(encoder.convs[0], h, mask)[0]
    encoder(h, mask)
    running = encoder.norms[0].module
    torch.testing.assert_close(running.running_mean, 0.1 * rows[mask].mean(0))
    torch.testing.assert_close(running.running_var, 0.9 + 0.1 * rows[mask].var(0))

    encoder.eval()
    expected = rows.clone()
    expected[mask] = (rows[mask] - running.running_mean) / (running.running_var + 1e-5).sqrt()
    torch.testing.assert_close(encoder(h, mask)[0], expected)
    expected = (rows - running.running_mean) / (running.running_var + 1e-5).sqrt()
    torch.testing.assert_close(encoder(h, mask)[0][mask], expected[mask])


def test_batch_norm_trains_on_a_single_node():
    encoder = LatentGraphEncoder(4, 1, 1, norm="batch", k_neighbors=1)
    out, _ = encoder(torch.randn(1, 1, 4))
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("norm", [None, "layer", "graph"])
def test_graphs_of_a_batch_do_not_mix(norm):
    encoder = randomize(LatentGraphEncoder(4, 5, 2, norm=norm, k_neighbors=2).double())
    h = torch.randn(3, 5, 4, dtype=torch.double)
    alone = torch.cat([encoder(h[g : g + 1])[0] for g in range(3)])
    torch.testing.assert_close(encoder(h)[0], alone)


def test_nobody_there_leaves_statistics_alone():
    encoder = LatentGraphEncoder(4, 5, 1, norm="batch").double()
    out, (*_, graph) = encoder(torch.randn(2, 5, 4).double(), torch.zeros(2, 5, dtype=torch.bool))
    assert torch.isfinite(out).all()
    assert graph.weights.sum() == 0
    assert torch.equal(encoder.norms[0].module.running_mean, torch.zeros(4).double())


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    encoder = LatentGraphEncoder(4, 5, 2, dropout=0.5, k_neighbors=2).double()
    h = torch.randn(3, 5, 4, dtype=torch.double)
    assert not torch.equal(encoder(h)[0], encoder(h)[0])
    assert all(conv.dropout == 0.5 for conv in encoder.convs)
    encoder.eval()
    torch.testing.assert_close(encoder(h)[0], convolve_layers(encoder, h)[0])
    silent = LatentGraphEncoder(4, 5, 2, dropout=1.0)
    assert torch.equal(silent(h.float())[0], torch.zeros(3, 5, 4))


def test_options_reach_the_layers():
    encoder = LatentGraphEncoder(
        6,
        5,
        3,
        k_neighbors=2,
        temperature=0.5,
        heads=3,
        static=2,
        add_self_loops=False,
        graph_per="window",
        candidates=EDGES,
    )
    assert len(encoder.convs) == 3
    assert encoder.graph_per == "window"
    for conv in encoder.convs:
        assert isinstance(conv, LatentCorrelationGCN)
        assert (conv.k_neighbors, conv.learner.temperature, conv.heads) == (2, 0.5, 3)
        assert (conv.learner.static, conv.learner.add_self_loops) == (2, False)
        assert torch.equal(conv.learner.candidates, candidate_table(EDGES, 5, False))


@pytest.mark.parametrize("norm", ["layer", "batch", "graph"])
def test_reset_parameters(norm):
    encoder = randomize(LatentGraphEncoder(4, 5, 2, norm=norm))
    before = encoder.convs[1].learner.lin_query.weight.clone()
    encoder.reset_parameters()
    assert not torch.equal(encoder.convs[1].learner.lin_query.weight, before)
    parameters = dict(encoder.norms[0].named_parameters())
    for name, parameter in parameters.items():
        expected = torch.zeros(4) if name.endswith("bias") else torch.ones(4)
        assert torch.equal(parameter, expected)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_layers": 0}, ValueError, "'num_layers' must be an int >= 1"),
        ({"num_layers": 2.0}, TypeError, "'num_layers' must be an int"),
        ({"norm": "instance"}, ValueError, "'norm' must be one of"),
        ({"dropout": -1.0}, ValueError, "'dropout' must be a number >= 0"),
        ({"k_neighbors": 6}, ValueError, "'k_neighbors' must be an int <= 5"),
        ({"heads": 3}, ValueError, "'heads' must divide"),
        (
            {"graph_per": "batch"},
            ValueError,
            "'graph_per' must be one of .'step', 'window'. .got 'batch'",
        ),
        ({"graph_per": None}, ValueError, "'graph_per' must be one of"),
        ({"candidates": [0, 1]}, TypeError, "'candidates' must be a torch.long tensor"),
        (
            {"candidates": EDGES, "k_neighbors": 5},
            ValueError,
            "'k_neighbors' must be at most .* 4 ",
        ),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        LatentGraphEncoder(**{"hidden_size": 4, "num_nodes": 5, **arguments})


@pytest.mark.parametrize("static", ["full", 2])
def test_layers_may_share_the_static_correlation(static):
    torch.manual_seed(0)
    encoder = LatentGraphEncoder(
        4, 6, 3, k_neighbors=2, static=static, dynamic=False, shared_static=True
    )
    apart = LatentGraphEncoder(4, 6, 3, k_neighbors=2, static=static, dynamic=False)
    own = sum(p.numel() for n, p in apart.convs[0].named_parameters() if "lin" not in n[:3])
    own -= sum(p.numel() for p in apart.convs[0].mlp.parameters())
    assert sum(p.numel() for p in apart.parameters()) - 2 * own == sum(
        p.numel() for p in encoder.parameters()
    )
    randomize(encoder.convs[0])
    h = torch.randn(2, 6, 4)
    graphs = [run_layer(conv, h)[1].to_dense() for conv in encoder.convs]
    assert torch.equal(graphs[0], graphs[1])
    assert torch.equal(graphs[0], graphs[2])
    # The layers still are apart otherwise, and a copy shares as the original does.
    assert not torch.equal(encoder.convs[0](h), encoder.convs[1](h))
    other = copy.deepcopy(encoder)
    other.load_state_dict(encoder.state_dict())
    assert sum(p.numel() for p in other.parameters()) == sum(
        p.numel() for p in encoder.parameters()
    )
    torch.testing.assert_close(other(h)[0], encoder(h)[0])


def test_there_must_be_a_static_correlation_to_share():
    with pytest.raises(ValueError, match="'shared_static' must be False when static=None"):
        LatentGraphEncoder(4, 6, static=None, shared_static=True)
    with pytest.raises(TypeError, match="'shared_static' must be a bool"):
        LatentGraphEncoder(4, 6, shared_static=1)


H, MASK = torch.ones(2, 3, 5, 4), torch.ones(2, 3, 5, dtype=torch.bool)


@pytest.mark.parametrize("graph_per", ["step", "window"])
@pytest.mark.parametrize(
    ("h", "mask", "error", "message"),
    [
        (H.tolist(), None, TypeError, "must be a torch.Tensor"),
        (H.long(), None, TypeError, "must be a floating point"),
        (H[:, :, :4], None, ValueError, "size 5 in dimension 2"),
        (H[..., :3], None, ValueError, "size 4 in dimension 3"),
        (H[:0], None, ValueError, "must not be empty"),
        (H[:, :0], None, ValueError, "must not be empty"),
        (H, MASK.tolist(), TypeError, r"'mask' must be a boolean tensor \(got list\)"),
        (H, MASK.float(), TypeError, r"'mask' must be a boolean tensor \(got torch.float32\)"),
        (H, MASK[:, 0], ValueError, "'mask' must have 3 dimensions"),
        (H, MASK[0], ValueError, "'mask' must have 3 dimensions"),
        (H, MASK[:1], ValueError, "'mask' .* size 2 in dimension 0"),
        (H, MASK[:, :1], ValueError, "'mask' .* size 3 in dimension 1"),
        (H[:, 0], MASK, ValueError, "'mask' must have 2 dimensions"),
    ],
)
def test_bad_input(graph_per, h, mask, error, message):
    encoder = LatentGraphEncoder(4, 5, graph_per=graph_per, k_neighbors=2)
    assert encoder(H, MASK)[0].shape == H.shape
    with pytest.raises(error, match=message):
        encoder(h, mask)


@pytest.mark.parametrize("static", ["full", 2])
@pytest.mark.parametrize("masked", [False, True])
def test_layers_that_agree_search_once(static, masked):
    torch.manual_seed(0)
    options = {"k_neighbors": 3, "static": static, "dynamic": False, "heads": 2}
    encoder = LatentGraphEncoder(4, 5, 3, shared_static=True, **options).double()
    apart = LatentGraphEncoder(4, 5, 3, **options).double()
    randomize(encoder)
    apart.load_state_dict(encoder.state_dict())
    h, mask = draw_steps(masked=masked)
    searches = count_searches(encoder)
    out, graphs = encoder(h, mask)
    assert searches == [0]
    expected, others = apart(h, mask)
    torch.testing.assert_close(out, expected)
    for graph, other in zip(graphs, others, strict=True):
        torch.testing.assert_close(graph.to_dense(), other.to_dense())
    # The shared correlation hears of the error by all layers.
    out.square().sum().backward()
    expected.square().sum().backward()
    gradients = {name: p.grad for name, p in encoder.named_parameters()}
    for name, gradient in gradients.items():
        place = name.split(".")
        if place[2:3] == ["learner"] and place[-1] in GraphLearner.STATIC:
            rest = ".".join(place[2:])
            of_each = [apart.get_parameter(f"convs.{layer}.{rest}").grad for layer in range(3)]
            torch.testing.assert_close(gradient, sum(of_each))
        else:
            torch.testing.assert_close(gradient, apart.get_parameter(name).grad)


@pytest.mark.parametrize(
    "change",
    [
        lambda encoder: setattr(encoder.convs[1], "k_neighbors", 2),
        lambda encoder: setattr(encoder.convs[1], "temperature", 2.0),
        lambda encoder: setattr(encoder.convs[1], "dense_training", True),
        lambda encoder: encoder.convs[1].learner.register_forward_hook(lambda *_: None),
    ],
)
def test_layers_that_differ_search_each(change):
    options = {"k_neighbors": 3, "static": 2, "dynamic": False}
    encoder = LatentGraphEncoder(4, 5, 2, shared_static=True, **options)
    change(encoder)
    searches = count_searches(encoder)
    encoder(torch.randn(3, 5, 4))
    assert searches == [0, 1]


@pytest.mark.parametrize(
    "options",
    [
        {"static": 2, "dynamic": True, "shared_static": True},
        {"static": 2, "dynamic": False},
        {"static": 2, "dynamic": False, "shared_static": True, "candidates": EDGES},
    ],
)
def test_layers_of_their_own_graph_search_each(options):
    encoder = LatentGraphEncoder(4, 5, 2, k_neighbors=2, **options)
    searches = count_searches(encoder)
    encoder(torch.randn(3, 5, 4))
    assert searches == [0, 1]


def count_searches(encoder):
    """The layers whose scores are computed, from now on."""
    searches = []
    for layer, conv in enumerate(encoder.convs):
        learner = conv.learner

        def factors(h, layer=layer, compute=learner._score_factors):
            searches.append(layer)
            return compute(h)

        learner._score_factors = factors
    return searches
