"""The reading one day before."""

from __future__ import annotations

from tsl_latentgnn.forecaster.baselines import season_steps

import numpy as np
import pandas as pd

from benchmarks.peers.peer import Forecaster, Peer, Series


class SeasonalNaivePeer(Peer):
    """Repeats the readings of the last day, of the last week where a step is a day."""

    @classmethod
    def fit(cls, series: Series) -> Forecaster:  # type: ignore[override]
        """Return the forecasts.

        Raises:
            ValueError: If there is no clock, or its steps have no season that is over before the validation part.
        """
        index = series.index
        season = None if index is None else season_steps(pd.Timedelta(index[1] - index[0]))
        if season is None or not 1 < season <= series.scored.min():
            raise ValueError(
                "'model' must not be seasonal_naive for data without a season that the training part holds (got "
                f"{'no clock' if season is None else f'one of {season} steps'})."
            )
        ahead = np.arange(1, series.horizon + 1)
        back = season * -(-ahead // season)
        return lambda last: series.seen[last[:, None] + ahead - back]
