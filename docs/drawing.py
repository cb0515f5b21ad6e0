"""Draw the flow of the data through the network, by what a forward pass shows: classes, shapes and order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tsl_latentgnn.models import LatentForecaster

import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor, nn

#: Sizes that tell the dimensions apart, and their letters.
SIZES = {"b": 2, "t": 5, "n": 7, "horizon": 3, "h": 16}
LETTERS = {size: letter for letter, size in SIZES.items()} | {SIZES["b"] * SIZES["n"]: "b·n"}
#: What each part does.
ROLES = {
    "input_encoder": "readings, differences,\nwhich are missing,\ncovariates, embedding",
    "spectral_encoder": "low frequencies\nof time and sensors",
    "temporal_encoder": "the window\nof each sensor",
    "graph_encoder": "messages along\nthe learned graph",
    "decoder": "all steps at once,\nadded to the last reading",
}
BLUE, ORANGE = "#0b5c8a", "#d55e00"


def find_parts(model: LatentForecaster) -> list[tuple[str, str, str]]:
    """Run the model; return name, class and output shape of its parts, in the order in which they are called."""
    parts = []

    def note(name: str, part: nn.Module) -> None:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            first = output if isinstance(output, Tensor) else output[0]
            parts.append((name, type(module).__name__, in_letters(first)))

        part.register_forward_hook(hook)

    for name, part in model.named_children():
        note(name, part)
    with torch.no_grad():
        model.eval()(torch.randn(SIZES["b"], SIZES["t"], SIZES["n"], 1))
    return parts


def in_letters(tensor: Tensor) -> str:
    """The shape of a tensor, by the letters of its dimensions."""
    return "[" + " ".join(LETTERS.get(size, str(size)) for size in tensor.shape) + "]"


def draw(path: Path) -> None:
    """Draw the default network, and write it to ``path``."""
    model = LatentForecaster(
        input_size=1,
        output_size=1,
        horizon=SIZES["horizon"],
        n_nodes=SIZES["n"],
        hidden_size=SIZES["h"],
    )
    parts = find_parts(model)
    figure = Figure(figsize=(9.8, 3))
    ax = figure.add_axes((0, 0, 1, 1), xlim=(-1.15, len(parts) + 0.35), ylim=(-1.15, 0.85))
    ax.axis("off")
    ends = {-1: ("readings", "[b t n 1]"), len(parts): ("forecast", "[b horizon n 1]")}
    for place, (name, kind, shape) in enumerate(parts):
        color = ORANGE if name == "graph_encoder" else BLUE
        left = place - 0.39
        ax.add_patch(
            FancyBboxPatch(
                (left, -0.3), 0.78, 0.6, boxstyle="round,pad=0.02", fc="white", ec=color, lw=1.8
            )
        )
        ax.text(place, 0.1, kind, ha="center", va="center", size=8.4, weight="bold", color=color)
        ax.text(place, -0.12, shape, ha="center", va="center", size=8.4, family="monospace")
        ax.text(place, 0.42, ROLES[name], ha="center", va="bottom", size=8.6, color="0.25")
        arrow(ax, (place - (0.58 if place else 0.52), 0), (left - 0.03, 0))
    for place, (name, shape) in ends.items():
        x = place + (0.15 if place < 0 else -0.06)
        ax.text(x, 0.06, name, ha="center", va="bottom", size=10, weight="bold")
        ax.text(x, -0.06, shape, ha="center", va="top", size=8.4, family="monospace")
    arrow(ax, (len(parts) - 0.58, 0), (len(parts) - 0.4, 0))
    graph = [name for name, _, _ in parts].index("graph_encoder")
    arrow(ax, (graph, -0.34), (graph, -0.72), ORANGE)
    ax.text(
        graph, -0.78, "LatentGraph", ha="center", va="top", size=9.5, weight="bold", color=ORANGE
    )
    ax.text(graph, -0.96, "k sources of each sensor", ha="center", va="top", size=8.6, color="0.25")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path)


def arrow(
    ax: Any, start: tuple[float, float], end: tuple[float, float], color: str = "0.3"
) -> None:
    """An arrow from one place to another."""
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": color, "lw": 1.4})
