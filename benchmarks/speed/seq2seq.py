"""The sequence-to-sequence model against its recurrence alone."""

from __future__ import annotations

from collections.abc import Callable

from tsl_latentgnn.models import Seq2SeqLatentGNN

import torch
from torch import Tensor
from torch.nn import LSTM, Module
from torch.nn import functional as F

from benchmarks.speed.report import Row, Table, Target, format_rate, format_seconds
from benchmarks.speed.settings import Settings
from benchmarks.speed.timing import Spread, interleave, ratio

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

    def infer(forward: Callable[[], object]) -> Callable[[], object]:
        def run() -> object:
            with torch.no_grad():
                return forward()

        return run

    model.eval()
    cheaper.eval()
    inference = interleave(
        {
            "bare": infer(lambda: bare(window, future)),
            "ours": infer(lambda: model(x)),
            "per window": infer(lambda: cheaper(x)),
        },
        settings.rounds(9),
        device=device,
    )
    model.train()
    cheaper.train()
    training = interleave(
        {
            "bare": _training_step(bare, lambda: F.l1_loss(bare(window, future), sequences)),
            "ours": _training_step(model, lambda: F.l1_loss(model(x)[0], y)),
            "per window": _training_step(cheaper, lambda: F.l1_loss(cheaper(x)[0], y)),
        },
        settings.rounds(7),
        device=device,
    )
    rows = []
    for what, seconds in (("inference", inference), ("training", training)):
        texts = format_seconds(seconds["ours"]), format_seconds(seconds["bare"])
        measured = ratio(seconds["ours"], seconds["bare"])
        rows.append(Row(f"{what} to the bare recurrence", *texts, measured, Target(1.8)))
    for what, seconds in (("inference", inference), ("training", training)):
        texts = format_seconds(seconds["per window"]), format_seconds(seconds["bare"])
        measured = ratio(seconds["per window"], seconds["bare"])
        rows.append(Row(f"{what} to the bare recurrence, one graph per window", *texts, measured))
    if device.type == "cpu" and settings.threads == _PUBLISHED_CORES:
        for what, seconds in (("inference", inference), ("training", training)):
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


def _training_step(model: Module, loss: Callable[[], Tensor]) -> Callable[[], object]:
    optimizer = torch.optim.Adam(model.parameters())

    def run() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return run
