"""Wild layouts of the data of a training: what ``predict`` makes of raw readings is what the test part saw."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_training_data import Data, check, day_code, make_frame, make_index, u_future

# The imports above mend tsl, where it has to be.
from tsl.data.preprocessing import MinMaxScaler, RobustScaler, StandardScaler  # isort: skip

pytestmark = [pytest.mark.tsl, pytest.mark.filterwarnings("ignore")]

STEPS = 160


@st.composite
def layouts(draw):
    """A data module, and the units of its covariates."""
    index = make_index(STEPS, tz=draw(st.sampled_from([None, "UTC", "Europe/Berlin"])))
    kinds = st.sampled_from([StandardScaler, MinMaxScaler, RobustScaler])
    axes = st.sampled_from([0, (0, 1)])
    scalers = {}
    if draw(st.booleans()):
        scalers["target"] = draw(kinds)(axis=draw(axes))
    units = draw(
        st.lists(
            st.sampled_from(["day", "week", "share_of_day", "weekday"]), unique=True, max_size=3
        )
    )
    u = None
    if units:
        u = day_code(index, units)
        if draw(st.booleans()):
            scalers["u"] = StandardScaler(axis=0)
        if draw(st.booleans()):
            u = np.repeat(u[:, None], 3, 1)
            scalers.pop("u", None)
    mask = None
    if draw(st.booleans()):
        mask = np.random.default_rng(draw(st.integers(0, 99))).random((STEPS, 3)) > 0.2
    window_lag = draw(st.integers(1, 3))
    data = Data(
        make_frame(index),
        mask=mask,
        u=u,
        scalers=scalers,
        window=window_lag * draw(st.integers(2, 4)),
        window_lag=window_lag,
        horizon_lag=draw(st.integers(1, 3)),
        delay=draw(st.integers(0, 3)),
        stride=draw(st.integers(1, 3)),
    )
    if mask is not None and draw(st.booleans()):
        data.feed_mask()
    if units and draw(st.booleans()):
        data.feed(u_future=u_future())
    return data, units


@given(layouts())
def test_forecasts_from_raw_readings_are_those_of_any_training(layout):
    check(*layout)
