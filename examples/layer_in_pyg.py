"""Put LatentCorrelationGCN between the convolutions of a PyG model, on PyG's own batches.

Graphs of twelve nodes come with edges that are of no use: the label is whether node 0 and a node that differs from
graph to graph carry the same mark. Run: ``python examples/layer_in_pyg.py``
"""

from __future__ import annotations

from tsl_latentgnn.nn import LatentCorrelationGCN

import torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GCNConv, Sequential, global_max_pool, summary

N = 12


def make_graph(generator: torch.Generator) -> Data:
    """A graph whose ring of edges does not connect the two marked nodes."""
    other = int(torch.randint(2, N - 1, (1,), generator=generator))
    marks = torch.randint(0, 2, (2,), generator=generator)
    x = torch.zeros(N, 4)
    x[0, marks[0]] = 1.0
    x[other, 2 + marks[1]] = 1.0
    ring = torch.arange(N)
    edge_index = torch.stack([ring, (ring + 1) % N])
    return Data(x=x, edge_index=edge_index, y=(marks[0] == marks[1]).long().view(1))


def main() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    train = DataLoader([make_graph(generator) for _ in range(512)], batch_size=32, shuffle=True)
    test = DataLoader([make_graph(generator) for _ in range(256)], batch_size=256)

    model = Sequential(
        "x, edge_index, batch",
        [
            (GCNConv(4, 32), "x, edge_index -> x"),
            (LatentCorrelationGCN(32, 32, num_nodes=N, k_neighbors=4, heads=2), "x -> x"),
            torch.nn.ReLU(),
            (GCNConv(32, 32), "x, edge_index -> x"),
            torch.nn.ReLU(),
            (global_max_pool, "x, batch -> x"),
            torch.nn.Linear(32, 2),
        ],
    )
    batch = next(iter(test))
    print(summary(model, batch.x, batch.edge_index, batch.batch))

    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(15):
        for data in train:
            out = model(data.x, data.edge_index, data.batch)
            loss = torch.nn.functional.cross_entropy(out, data.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    model.eval()
    with torch.no_grad():
        correct = model(batch.x, batch.edge_index, batch.batch).argmax(-1) == batch.y
        hidden = model[0](batch.x, batch.edge_index)
        _, (edge_index, alpha) = model[1](hidden, return_attention_weights=True)
    print(f"test accuracy {correct.float().mean():.3f}")
    print(f"learned edges {list(edge_index.shape)}, weights {list(alpha.shape)}")


if __name__ == "__main__":
    main()
