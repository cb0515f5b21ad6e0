"""Datasets of hourly readings in tables: air of Beijing, a power transformer, buses of Montevideo.

Nothing of them is downloaded: their docstrings say where they are published, and which files ``data_dir`` is to hold.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pandas as pd
from tsl.datasets.prototypes import DatetimeDataset

_HOUR = pd.Timedelta(hours=1)


class TableDataset(DatetimeDataset):
    """Hourly readings of a wide table: time stamps in the first column, then one column for each sensor.

    An empty cell, or an hour that is not there, is a missing reading.

    Args:
        root (str, optional): Folder with the files. (default: tsl's storage)
    """

    #: The files: the table first.
    FILES: tuple[str, ...]
    #: Where they are published.
    SOURCE: str
    #: Hours that count, from the first on; ``None`` for all.
    HOURS: int | None = None
    similarity_options = {"correntropy"}  # noqa: RUF012  # as tsl has it

    def __init__(self, root: str | None = None) -> None:
        self.root = root
        self.maybe_download()
        table = self.read(self.FILES[0], index_col=0, parse_dates=True)
        hours = pd.date_range(table.index.min(), table.index.max(), freq=_HOUR)
        table = table.reindex(hours)[: self.HOURS].astype(np.float32)
        table.columns = table.columns.astype(str)
        there = table.notna().to_numpy()
        super().__init__(
            target=table,
            mask=None if there.all() else there,
            covariates=self.read_covariates(table),
            similarity_score=min(self.similarity_options),
            temporal_aggregation="nearest",
            name=type(self).__name__,
        )

    @property
    def raw_file_names(self) -> list[str]:
        """The files, of which nothing is built."""
        return list(self.FILES)

    def download(self) -> None:
        """Say where the files are.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"'data_dir' must be a folder with {', '.join(self.FILES)}, which are not downloaded (got "
            f"{self.root_dir!r}, where they are not all). They are of {self.SOURCE}."
        )

    def read(self, file: str, **options: Any) -> pd.DataFrame:
        """Return one of the files."""
        return pd.read_csv(os.path.join(self.root_dir, file), **options)

    def read_covariates(self, table: pd.DataFrame) -> dict[str, pd.DataFrame] | None:
        """Return what is known of the past beside the readings, ``{"u": [t n c]}``; ``None`` if nothing is."""
        return None


class BeijingAir(TableDataset):
    r"""PM2.5 in µg/m³ at 12 stations of Beijing, hourly, 2013-03-01 to 2017-02-28.

    Published as `UCI 501 <https://archive.ics.uci.edu/dataset/501/beijing+multi+site+air+quality+data>`_, CC BY 4.0
    (`Zhang et al., 2017 <https://doi.org/10.1098/rspa.2017.0457>`_). ``pm25.csv`` is made of its twelve files by

    .. code-block:: python

        long = pd.concat(map(pd.read_csv, Path("PRSA_Data_20130301-20170228").glob("*.csv")))
        long["time"] = pd.to_datetime(long[["year", "month", "day", "hour"]])
        long.pivot(index="time", columns="station", values="PM2.5").to_csv("pm25.csv")

    Dataset information:
        + Time steps: 35064
        + Nodes: 12, without positions: the graph of the published set is none, and ``method="full"`` joins all
        + Channels: 1
        + Sampling rate: 1 hour
        + Missing values: 2.1 %

    Args:
        root (str, optional): Folder with ``pm25.csv``. (default: tsl's storage)
    """

    FILES: tuple[str, ...] = ("pm25.csv",)
    SOURCE = "https://archive.ics.uci.edu/dataset/501"


class BeijingAirWeather(BeijingAir):
    """As :class:`BeijingAir`, with the weather at each station as covariate ``u``, of which only the past is known.

    These are temperature and dew point (°C), pressure (hPa), rain (mm) and wind speed (m/s). ``weather.csv.gz`` is made
    of the published files by ``long[["time", "station", "TEMP", "PRES", "DEWP", "RAIN", "WSPM"]].to_csv(path,
    index=False)``, with ``long`` as in :class:`BeijingAir`.

    Args:
        root (str, optional): Folder with ``pm25.csv`` and ``weather.csv.gz``. (default: tsl's storage)
    """

    FILES = ("pm25.csv", "weather.csv.gz")
    #: Columns of the weather.
    CHANNELS = ("TEMP", "PRES", "DEWP", "RAIN", "WSPM")

    def read_covariates(self, table: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Return the weather, NaN where it is missing."""
        long = self.read(self.FILES[1], parse_dates=["time"])
        wide = long.pivot(index="time", columns="station").swaplevel(axis=1)
        columns = pd.MultiIndex.from_product([table.columns, self.CHANNELS])
        return {"u": wide[columns].reindex(table.index).astype(np.float32)}


class ETTh1(TableDataset):
    """Six loads and the oil temperature of a power transformer, hourly: seven unlike series.

    Published as `ETTh1.csv <https://github.com/zhouhaoyi/ETDataset>`_, CC BY-ND 4.0 (`Zhou et al., AAAI 2021
    <https://arxiv.org/abs/2012.07436>`_). The field uses its first 20 months of 30 days: 12 to train, 4 to validate and
    4 to test; what is behind them is left out.

    Dataset information:
        + Time steps: 14400 (of 17420)
        + Nodes: 7, without a graph: ``method="full"`` joins all
        + Channels: 1
        + Sampling rate: 1 hour
        + Missing values: none

    Args:
        root (str, optional): Folder with ``ETTh1.csv``. (default: tsl's storage)
    """

    FILES = ("ETTh1.csv",)
    SOURCE = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/ETTh1.csv"
    HOURS = 20 * 30 * 24


class MontevideoBus(TableDataset):
    r"""Passengers who board at each of 675 bus stops of Montevideo, hourly, October 2020; most of these counts are 0.

    Published with `PyTorch Geometric Temporal <https://pytorch-geometric-temporal.readthedocs.io>`_, MIT licence, as
    ``montevideo_bus.json``: its nodes have the counts (here a column of ``passengers.csv`` each), its links source,
    target and metres (here ``links.csv``). It has no time stamps: the first hour is taken to be that of October 1.

    Dataset information:
        + Time steps: 744
        + Nodes: 675
        + Channels: 1
        + Sampling rate: 1 hour
        + Missing values: none

    Static attributes:
        + :obj:`links`: :math:`N \times N` matrix, 1 where a bus line goes from a stop (column) to another (row).

    Args:
        root (str, optional): Folder with ``passengers.csv`` and ``links.csv``. (default: tsl's storage)
    """

    FILES = ("passengers.csv", "links.csv")
    SOURCE = (
        "https://raw.githubusercontent.com/benedekrozemberczki/pytorch_geometric_temporal/"
        "master/dataset/montevideo_bus.json"
    )
    similarity_options = {"links"}  # noqa: RUF012  # as tsl has it

    def __init__(self, root: str | None = None) -> None:
        super().__init__(root)
        links = self.read(self.FILES[1], dtype={"source": str, "target": str})
        stops = pd.Index(self.nodes)
        target, source = (stops.get_indexer(links[end]) for end in ("target", "source"))
        if min(target.min(), source.min()) < 0:
            raise ValueError(f"{self.FILES[1]} has links of stops that {self.FILES[0]} has not")
        matrix = np.zeros((self.n_nodes, self.n_nodes), np.float32)
        matrix[target, source] = 1.0
        self.add_covariate("links", matrix, pattern="n n")

    def compute_similarity(self, method: str, **kwargs: Any) -> np.ndarray:
        """Return the links."""
        links: np.ndarray = self.links
        return links.copy()
