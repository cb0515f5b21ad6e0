from tsl_latentgnn.nn import LatentGraph

import numpy as np
import pytest
import torch


def make_graph(*batch_shape, num_nodes=5, k=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(*batch_shape, num_nodes, num_nodes, generator=generator)
    neighbors = scores.argsort(-1)[..., :k].contiguous()
    weights = torch.rand(*batch_shape, num_nodes, k, generator=generator).softmax(-1)
    return LatentGraph(neighbors, weights)


def dense_by_hand(neighbors, weights):
    dense = np.zeros((len(neighbors), len(neighbors)))
    for i, (sources, values) in enumerate(zip(neighbors.tolist(), weights.tolist(), strict=True)):
        for j, value in zip(sources, values, strict=True):
            dense[i, j] += value
    return dense


def test_sizes_and_repr():
    graph = make_graph(2, 4)
    assert (graph.num_nodes, graph.k_neighbors, graph.num_graphs, len(graph)) == (5, 3, 8, 2)
    assert graph.batch_shape == (2, 4)
    assert repr(graph) == "LatentGraph(batch_shape=[2, 4], num_nodes=5, k_neighbors=3)"
    assert repr(make_graph()) == "LatentGraph(num_nodes=5, k_neighbors=3)"


def test_to_dense_has_targets_in_rows():
    graph = make_graph(2, 4)
    dense = graph.to_dense()
    assert dense.shape == (2, 4, 5, 5)
    for b in range(2):
        for t in range(4):
            expected = dense_by_hand(graph.neighbors[b, t], graph.weights[b, t])
            np.testing.assert_allclose(dense[b, t], expected, atol=1e-6)
    np.testing.assert_allclose(dense.sum(-1), np.ones((2, 4, 5)), atol=1e-6)
    np.testing.assert_allclose(graph.mean(), dense.mean((0, 1)), atol=1e-6)


def test_edge_index_is_source_to_target_over_flat_nodes():
    graph = make_graph(2)
    edge_index, edge_weight = graph.edge_index, graph.edge_weight
    assert edge_index.shape == (2, 2 * 5 * 3)
    dense = np.zeros((10, 10))
    for (source, target), weight in zip(edge_index.t().tolist(), edge_weight.tolist(), strict=True):
        dense[target, source] += weight
    np.testing.assert_allclose(dense[:5, :5], graph[0].to_dense(), atol=1e-6)
    np.testing.assert_allclose(dense[5:, 5:], graph[1].to_dense(), atol=1e-6)
    assert dense[:5, 5:].sum() == dense[5:, :5].sum() == 0


def test_indexing_follows_tensors():
    graph = make_graph(2, 4)
    dense = graph.to_dense()
    for index in (0, -1, slice(1, None), (0, 2), (slice(None), -1), torch.tensor([1, 0])):
        torch.testing.assert_close(graph[index].to_dense(), dense[index])
    with pytest.raises(IndexError, match="no batch or time"):
        graph[0, 0][0]
    with pytest.raises(TypeError, match="no length"):
        len(graph[0, 0])


def test_to_data_and_networkx():
    graph = make_graph(2)
    data = graph.to_data()
    assert data.num_nodes == 10
    assert data.batch.tolist() == [0] * 5 + [1] * 5
    torch.testing.assert_close(data.edge_index, graph.edge_index)
    assert data.validate()
    assert "batch" not in graph[0].to_data()

    weights = graph[0].weights.clone()
    weights[2, 1] = 0  # a source that was masked out
    single = LatentGraph(graph[0].neighbors, weights)
    directed = single.to_networkx()
    assert directed.number_of_nodes() == 5
    assert directed.number_of_edges() == 14
    for source, target, weight in directed.edges(data="weight"):
        assert weight == pytest.approx(float(single.to_dense()[target, source]))
    with pytest.raises(ValueError, match="single graph"):
        graph.to_networkx()


def make_named(*batch_shape):
    plain = make_graph(*batch_shape)
    p_values = torch.rand(plain.weights.shape, dtype=torch.double)
    names = [f"sensor {n}" for n in range(5)]
    return LatentGraph(plain.neighbors, plain.weights, names, p_values, p_values < 0.5)


def test_names_p_values_and_decisions_go_along():
    graph = make_named(2, 4)
    for other in (graph[1, :2], graph.detach()[1, :2], graph.to("cpu")[1, :2]):
        assert other.names == graph.names
        assert torch.equal(other.p_values, graph.p_values[1, :2])
        assert torch.equal(other.kept, graph.kept[1, :2])
    assert graph.to(torch.half).p_values.dtype == torch.double
    assert graph.to("meta").kept.is_meta
    plain = make_graph()
    assert plain.names is plain.p_values is plain.kept is None


def test_to_frame():
    graph = make_named()
    graph.weights[2, 1] = 0
    frame = graph.to_frame()
    assert list(frame) == ["source", "target", "weight", "p_value", "kept"]
    assert frame.weight.is_monotonic_decreasing
    expected = {
        (f"sensor {int(graph.neighbors[i, n])}", f"sensor {i}"): (
            float(graph.weights[i, n]),
            float(graph.p_values[i, n]),
            bool(graph.kept[i, n]),
        )
        for i in range(5)
        for n in range(3)
        if (i, n) != (2, 1)
    }
    assert {tuple(row[:2]): tuple(row[2:]) for row in frame.itertuples(index=False)} == expected
    plain = make_graph().to_frame()
    assert list(plain) == ["source", "target", "weight"]
    assert set(plain.target) == set(range(5))
    with pytest.raises(
        ValueError, match=r"'to_frame' needs a single graph .*such as graph\[0, 0\]"
    ):
        make_named(2, 4).to_frame()


def test_graphml(tmp_path):
    networkx = pytest.importorskip("networkx")
    graph = make_named()
    path = tmp_path / "graph.graphml"
    graph.write_graphml(path)
    read = networkx.read_graphml(path)
    ours = graph.to_networkx()
    assert list(read.nodes) == list(ours.nodes) == graph.names
    assert dict(read.edges) == dict(ours.edges)
    for row in graph.to_frame().itertuples():
        edge = read.edges[row.source, row.target]
        assert edge == {"weight": row.weight, "p_value": row.p_value, "kept": row.kept}
    make_graph().write_graphml(path)
    assert set(read.nodes) != set(networkx.read_graphml(path).nodes) == {"0", "1", "2", "3", "4"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"names": ["a", "b"]}, ValueError, r"'names' must name all 5 nodes.*got 2 names, 2 of"),
        ({"names": ["a"] * 5}, ValueError, r"'names' must name all 5 nodes.*got 5 names, 1 of"),
        ({"names": "abcde"}, TypeError, "'names' must be a sequence of str"),
        ({"names": [1, 2, 3, 4, 5]}, TypeError, "'names' must be a sequence of str"),
        ({"p_values": torch.ones(5, 2)}, ValueError, "'p_values' of the shape of 'neighbors'"),
        ({"p_values": torch.ones(5, 3).long()}, TypeError, "'p_values' must be a floating point"),
        ({"kept": torch.ones(5, 3)}, TypeError, "'kept' must be a boolean tensor"),
    ],
)
def test_bad_names_p_values_and_decisions(options, error, message):
    graph = make_graph()
    with pytest.raises(error, match=message):
        LatentGraph(graph.neighbors, graph.weights, **options)


def test_detach_and_to():
    weights = torch.rand(4, 2, requires_grad=True)
    graph = LatentGraph(torch.zeros(4, 2, dtype=torch.long), weights)
    assert graph.to_dense().requires_grad
    assert not graph.detach().to_dense().requires_grad
    moved = graph.to(torch.double)
    assert moved.weights.dtype == torch.double
    assert moved.neighbors.dtype == torch.long


@pytest.mark.parametrize(
    ("neighbors", "weights", "error", "message"),
    [
        ([[0]], torch.ones(1, 1), TypeError, "'neighbors' must be a torch.long"),
        (torch.zeros(2, 1), torch.ones(2, 1), TypeError, "'neighbors' must be a torch.long"),
        (torch.zeros(2, 1).long(), torch.ones(2, 1).long(), TypeError, "'weights' must be a float"),
        (torch.zeros(2, 1).long(), None, TypeError, "'weights' must be a float"),
        (torch.zeros(2, 1).long(), torch.ones(2, 2), ValueError, "same shape"),
        (torch.zeros(2).long(), torch.ones(2), ValueError, "same shape"),
    ],
)
def test_bad_input(neighbors, weights, error, message):
    with pytest.raises(error, match=message):
        LatentGraph(neighbors, weights)
