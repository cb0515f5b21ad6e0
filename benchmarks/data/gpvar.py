"""GPVAR-AZ, GPVAR on larger graphs generated with tsl's own filter, and the known answers to all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tsl import datasets


class _Generated(datasets.GPVARDataset):
    """A dataset that is generated once and stored, by one process, and whole: a kill leaves no half file."""

    def build(self) -> None:
        """Generate the series beside their optimal prediction, store them, and then give the file its name."""
        path = Path(self.required_files_paths[0])
        with open(path.with_name(f"{path.name}.lock"), "a") as lock:
            with contextlib.suppress(OSError, ImportError):  # without locks here, or on Windows
                import fcntl

                fcntl.lockf(lock, fcntl.LOCK_EX)  # until it is closed
            if path.exists():
                return
            x, y_opt, _ = self.generate_data(seed=self.seed)
            unfinished = path.with_name(f"{path.name}.tmp")
            with open(unfinished, "wb") as file:
                np.save(file, np.stack([x, y_opt]))
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)


class GPVARDatasetAZ(_Generated, datasets.GPVARDatasetAZ):
    """tsl's, generated as above."""


class GPVAR120(_Generated):
    """GPVAR with filter and noise of GPVAR-AZ on four times its graph: 20 communities, 120 nodes, 10,000 steps.

    It is generated once and stored.

    Args:
        root (str, optional): Folder for the generated file. (default: tsl's storage)
        seed (int): Random seed of the noise, and of the directions of edges. (default: ``1234``)
    """

    seed = 1234
    NUM_COMMUNITIES = 20
    NUM_STEPS = 10_000
    SIGMA_NOISE = 0.4
    DIRECTED = False
    FILE_NAME = "GPVAR_120"
    connectivity: tuple[Tensor, Tensor | None]

    def __init__(self, root: str | None = None, seed: int = 1234) -> None:
        self.root = root
        self.seed = seed
        super().__init__(
            num_communities=self.NUM_COMMUNITIES,
            num_steps=self.NUM_STEPS,
            filter_params=[[5.0, 2.0], [-4.0, 6.0], [-1.0, 0.0]],
            sigma_noise=self.SIGMA_NOISE,
            norm="none",
            name=type(self).__name__,
        )

    @property
    def raw_file_names(self) -> list[str]:
        """Nothing is downloaded."""
        return []

    @property
    def required_file_names(self) -> list[str]:
        """The generated series beside their optimal prediction."""
        return [f"{self.FILE_NAME}_{self.seed}.npy"]

    def load_raw(self, *args: Any, **kwargs: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the series, their optimal prediction and their mask, generated if they are not stored."""
        # tsl has set the graph by now and generates from it next.
        if self.DIRECTED:
            edge_index, _ = self.connectivity
            self.connectivity = keep_one_direction(edge_index, self.seed), None
        self.maybe_build()
        x, y_opt = np.load(self.required_files_paths[0])
        return x, y_opt, np.ones_like(x)


class GPVAR120Directed(GPVAR120):
    """As :class:`GPVAR120`, but every edge has one direction, drawn at random."""

    DIRECTED = True
    FILE_NAME = "GPVAR_120_directed"


def keep_one_direction(edge_index: Tensor, seed: int) -> Tensor:
    """Return the edges with one of each pair ``i -> j`` and ``j -> i``, drawn at random; self-loops stay.

    Args:
        edge_index: Edges ``[2, E]`` of a graph in which every edge has its reverse.
        seed: Random seed of the directions.
    """
    source, target = edge_index
    nodes = int(edge_index.max()) + 1
    forward = torch.rand(nodes, nodes, generator=torch.Generator().manual_seed(seed)) < 0.5
    lower, upper = torch.minimum(source, target), torch.maximum(source, target)
    # One draw for the pair, whichever way round it comes.
    keep = (source == target) | (forward[lower, upper] == (source < target))
    return edge_index[:, keep]
