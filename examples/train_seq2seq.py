"""Train Seq2SeqLatentGNN in a plain PyTorch loop; no tsl is needed.

Each node is a travelling wave that reaches the next one a few steps later, so the past of a neighbor tells the
future. Run: ``python examples/train_seq2seq.py``
"""

from __future__ import annotations

import math

from tsl_latentgnn.evaluation import metrics
from tsl_latentgnn.models import Seq2SeqLatentGNN
from tsl_latentgnn.visualization import plot_attention

import torch
from matplotlib import pyplot as plt
from torch.utils.data import DataLoader, TensorDataset

T_IN, T_OUT, N = 24, 12, 10


def make_windows(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows ``[count, T_IN, N, 2]`` (wave and position of the node) and futures ``[count, T_OUT, N]``."""
    start = 1000 * torch.rand(count, 1, 1, generator=generator)
    steps = start + torch.arange(T_IN + T_OUT).view(1, -1, 1) - 3 * torch.arange(N)
    wave = torch.sin(2 * math.pi * steps / 30) + 0.5 * torch.sin(2 * math.pi * steps / 47)
    position = torch.linspace(-1, 1, N).expand(count, T_IN, N)
    return torch.stack([wave[:, :T_IN], position], -1), wave[:, T_IN:]


def main() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    train_loader = DataLoader(
        TensorDataset(*make_windows(512, generator)), batch_size=32, shuffle=True
    )
    x_test, y_test = make_windows(128, generator)

    model = Seq2SeqLatentGNN(
        node_input_dim=2, hidden_dim=32, num_nodes=N, out_seq_len=T_OUT, k_neighbors=4
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-4)
    criterion = torch.nn.L1Loss()
    for epoch in range(6):
        model.train()
        for x, y in train_loader:
            y_hat, _ = model(x, targets=y, teacher_forcing=True)
            loss = criterion(y_hat, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: training loss {loss.item():.4f}")

    model.eval()
    with torch.no_grad():
        y_hat, attention = model(x_test)
    print({name: round(value, 4) for name, value in metrics(y_test, y_hat).items()})
    plot_attention(attention, title="Latent adjacency")
    plt.savefig("attention.png", dpi=150)
    print("wrote attention.png")


if __name__ == "__main__":
    main()
