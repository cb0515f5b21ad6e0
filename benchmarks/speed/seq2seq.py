"""The sequence-to-sequence model against its recurrence alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tsl_latentgnn.models import Seq2SeqLatentGNN

import torch
from torch import Tensor
from torch.nn import LSTM, Module
from torch.nn import functional as F

from benchmarks.speed.report import Row, Table, Target, format_rate
from benchmarks.speed.settings import Settings
from benchmarks.speed.timing import Spread, interleave, optimizer_step

_STEPS = 12
_FEATURES = 3
_LAYERS = 2

#: Windows per second of the published implementation, measured before on so many CPU cores.
_PUBLISHED = {"inference": 20.0, "training": 5.5}
_PUBLISHED_CORES = 2


class BareRecurrence(Module):
    """What the model cannot do without: its LSTM over the window and its LSTM over the horizon.

    No graph, no attention, no readout; each LSTM runs over all its steps in one call.

    Args:
        hidden_size: Size of the states.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.encoder = LSTM(hidden_size, hidden_size, _LAYERS, batch_first=True)
        self.decoder = LSTM(1, hidden_size, _LAYERS, batch_first=True)

    def forward(self, window: Tensor, future: Tensor) -> Tensor:
        """Return the first state channel ``[S, horizon]`` from ``[S, T, H]`` and ``[S, horizon, 1]``."""
        _, state = self.encoder(window)
        return self.decoder(future, state)[0][..., 0]


def measure(settings: Settings) -> list[Table]:
    """Return the table of inference and of training steps."""
    batch, nodes, hidden = (2, 6, 8) if settings.quick else (16, 207, 64)
    device = settings.device
    torch.manual_seed(0)
    model = Seq2SeqLatentGNN(_FEATURES, hidden, nodes, _STEPS).to(device)
    cheaper = Seq2SeqLatentGNN(_FEATURES, hidden, nodes, _STEPS, graph_per="window").to(device)
    bare = BareRecurrence(hidden).to(device)
    x = torch.randn(batch, _STEPS, nodes, _FEATURES, device=device)
    y = torch.randn(batch, _STEPS, nodes, device=device)
    window = torch.randn(batch * nodes, _STEPS, hidden, device=device)
    future = torch.randn(batch * nodes, _STEPS, 1, device=device)
    sequences = y.transpose(1, 2).flatten(0, 1).contiguous()

    models = {"bare": bare, "ours": model, "per window": cheaper}
    inputs = {"bare": (window, future), "ours": (x,), "per window": (x,)}
    losses: dict[str, Callable[[], Tensor]] = {
        "bare": lambda: F.l1_loss(bare(window, future), sequences),
        "ours": lambda: F.l1_loss(model(x)[0], y),
        "per window": lambda: F.l1_loss(cheaper(x)[0], y),
    }
    passes: dict[str, dict[str, list[float]]] = {}
    for what, training, rounds in (("inference", False, 9), ("training", True, 7)):
        sides = {}
        for name, module in models.items():
            module.train(training)
            step = optimizer_step(torch.optim.Adam(module.parameters()), losses[name])
            sides[name] = step if training else torch.no_grad()(partial(module, *inputs[name]))
        passes[what] = interleave(sides, settings.rounds(rounds), device=device)
    rows = []
    for side, text, target in (
        ("ours", "", Target(1.8)),
        ("per window", ", one graph per window", None),
    ):
        for what, seconds in passes.items():
            title = f"{what} to the bare recurrence{text}"
            rows.append(Row.compare(title, seconds[side], seconds["bare"], target))
    if device.type == "cpu" and settings.threads == _PUBLISHED_CORES:
        for what, seconds in passes.items():
            published = _PUBLISHED[what]
            rows.append(
                Row(
                    f"{what} to the published code",
                    format_rate(seconds["ours"], batch),
                    f"{published:g} windows/s (not run here)",
                    Spread.of([batch / second / published for second in seconds["ours"]]),
                    Target(6.0, at_least=True),
                )
            )
    return [
        Table(
            "Sequence-to-sequence model and its recurrence",
            f"`Seq2SeqLatentGNN` with its defaults: hidden size {hidden}, {batch} windows of "
            f"{_STEPS} steps, {_STEPS} steps ahead, {nodes} nodes, {_FEATURES} features. The bare "
            f"recurrence is one `nn.LSTM` of {_LAYERS} layers over the window and one over the "
            f"horizon, {batch * nodes:,} sequences. A training step is forward, L1 loss, backward "
            f"and Adam, on both sides. The speed of the published code, which stands beside ours on "
            f"{_PUBLISHED_CORES} CPU threads, was measured on {_PUBLISHED_CORES} cores in another "
            f"run.",
            rows,
        )
    ]
