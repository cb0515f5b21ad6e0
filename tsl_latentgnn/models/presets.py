"""Named settings of the network, and what lets a constructor take one by its name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any

from .._checks import check_choice
from .._renamed import ARGUMENTS, rename_arguments

#: What each preset says of the network's options; whatever the caller gives wins over it. ``"state"`` are the defaults
#: of the constructor.
#:
#: - ``"state"`` is for forecasting. Its shares average over neighbors, the better prior where these are alike, as in
#:   traffic; what its edges are worth is said by :func:`~tsl_latentgnn.graphs.edge_test` alone.
#: - ``"discovery"`` is for reading the graph, where series drive each other with either sign, or not at all. Train it
#:   with :class:`~tsl_latentgnn.engines.GroupLasso`, as ``Forecaster`` does, and let ``edge_test`` decide.
#:   ``Forecaster`` also tries two layers and a gate, and keeps the network of the lowest validation loss. All pairs
#:   have a weight, so that it is for up to some thousands of nodes; ``Seq2SeqLatentGNN`` is to be told
#:   ``k_neighbors=None``. Where both are tried, the validation loss chooses for a forecast.
#: - ``"seq2seq"`` is the documented computation of :class:`~tsl_latentgnn.models.Seq2SeqLatentGNN`.
#:
#: No edge of any preset is proof of a cause. A driver that is not among the series makes edges between those that it
#: drives; what happens within one step is seen as an edge of the next one, or not at all; and of readings that are sums
#: or samples of a faster process, the edges are those of several of its steps at once, ways through other nodes with
#: them.
PRESETS: dict[str, dict[str, Any]] = {
    # To read the graph: one layer, whose edges are the direct ones, of weights that can be zero.
    "discovery": {
        "hidden_size": 32,
        "weights": "signed",
        "heads": 2,
        "gate": False,
        "k_neighbors": None,
        "add_self_loops": False,
        "latent_layers": 1,
        "dropout": 0.0,
        "node_emb_size": 16,
        "differences": False,
    },
    # The documented computation of Seq2SeqLatentGNN: a graph for every step, a decoder with attention.
    "seq2seq": {
        "hidden_size": 64,
        "k_neighbors": 4,
        "static": "full",
        "dynamic": True,
        "shared_static": False,
        "graph_at": "input",
        "latent_layers": 2,
        "lstm_layers": 2,
        "dropout": 0.0,
        "modes": (8, 8),
        "node_emb_size": 0,
        "decoder": "attention",
        "residual": False,
        "differences": False,
        "conv_smoothing": True,
        "gaussian_smoothing": True,
    },
}


def fill_in(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options by their names of today, with what their preset says beside them, whose ``k_neighbors`` is at
    most the number of nodes.

    Raises:
        ValueError: If there is no such preset.
    """
    options = {ARGUMENTS.get(name, name): value for name, value in options.items()}
    preset = check_choice("preset", options.get("preset", "state"), tuple(PRESETS))
    filled = {**PRESETS[preset], **options}
    nodes = options.get("n_nodes")
    sources = filled["k_neighbors"]
    if "k_neighbors" not in options and sources is not None and isinstance(nodes, Integral):
        filled["k_neighbors"] = min(sources, max(1, int(nodes)))
    return filled


def takes_preset(init: Callable[..., None]) -> Callable[..., None]:
    """Let ``init``, whose defaults are the preset ``"state"``, have those of the preset that it is given."""
    signature = inspect.signature(init)
    names = list(signature.parameters)[1:]
    options = dict.fromkeys(name for preset in PRESETS.values() for name in preset)
    PRESETS["state"] = {name: signature.parameters[name].default for name in options}

    @functools.wraps(init)
    def init_with_preset(self: Any, *args: Any, **kwargs: Any) -> None:
        given = dict(zip(names, args, strict=False))
        rename_arguments(kwargs, type(self).__name__)
        filled = fill_in({**given, **kwargs})
        # What is given twice is left to Python, which refuses it.
        kept = {name for name in filled if name not in given or name in kwargs}
        init(self, *args, **{name: filled[name] for name in kept})

    # tsl reads the signature without a look at what is wrapped.
    init_with_preset.__signature__ = signature  # type: ignore[attr-defined]
    return init_with_preset
