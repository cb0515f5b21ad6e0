"""Tables of the nodes that may be sources of each target."""

from __future__ import annotations

import torch
from torch import Tensor


def candidate_table(candidates: Tensor, num_nodes: int, self_loops: bool) -> Tensor:
    r"""Sources that each target may choose from, as rows of a table.

    Args:
        candidates (torch.Tensor): Edges :math:`[2, E]` from sources to targets, as PyG has them, or a table
            :math:`[N, C]` of sources with -1 in its empty places. Two rows are taken for edges.
        num_nodes (int): Number of nodes :math:`N`.
        self_loops (bool): Whether every target is a candidate of its own, in column 0.

    Returns:
        torch.Tensor: Table :math:`[N, C']` whose rows ascend (after column 0 with ``self_loops``), each source once, -1
        behind them.

    Raises:
        TypeError: If ``candidates`` does not hold 64-bit integers.
        ValueError: If it has another shape, names a node that is not there, or holds no candidate.
    """
    if not isinstance(candidates, Tensor) or candidates.dtype != torch.long:
        came = candidates.dtype if isinstance(candidates, Tensor) else type(candidates).__name__
        raise TypeError(f"'candidates' must be a torch.long tensor [2, E] or [N, C] (got {came}).")
    if candidates.dim() != 2 or candidates.size(0) not in (2, num_nodes):
        raise ValueError(
            f"'candidates' must have shape [2, E] or [N, C] with N={num_nodes} "
            f"(got {list(candidates.shape)})."
        )
    nodes = torch.arange(num_nodes, device=candidates.device)
    edges = candidates.size(0) == 2
    lowest = 0 if edges else -1
    if candidates.numel() > 0 and not lowest <= candidates.min() <= candidates.max() < num_nodes:
        raise ValueError(
            f"'candidates' must hold nodes from {lowest} to {num_nodes - 1} "
            f"(got {int(candidates.min())} to {int(candidates.max())})."
        )
    if edges:
        source, target = candidates
    else:
        source, target = candidates.flatten(), nodes.repeat_interleave(candidates.size(1))
        source, target = source[source >= 0], target[source >= 0]
    if self_loops:
        source, target = source[source != target], target[source != target]

    pairs = torch.unique(target * num_nodes + source)
    target, source = pairs // num_nodes, pairs % num_nodes
    counts = torch.bincount(target, minlength=num_nodes)
    place = torch.arange(pairs.numel(), device=pairs.device) - (counts.cumsum(0) - counts)[target]
    table = pairs.new_full((num_nodes, int(counts.max())), -1)
    table[target, place] = source
    if self_loops:
        table = torch.cat([nodes.unsqueeze(-1), table], -1)
    if table.size(1) == 0:
        raise ValueError("'candidates' must hold at least one candidate (got none).")
    return table
