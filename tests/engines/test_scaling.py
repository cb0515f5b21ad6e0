"""The way back from every scaler of tsl."""

from __future__ import annotations

from tsl_latentgnn.engines.scaling import undo_scaler

import pytest
import torch
from torch.distributions import Normal

# The import above mends tsl, where it has to be.
from tsl.data.preprocessing import MinMaxScaler, RobustScaler, ScalerModule, StandardScaler  # isort: skip

pytestmark = pytest.mark.tsl


@pytest.mark.parametrize("scaler", [StandardScaler, MinMaxScaler, RobustScaler])
@pytest.mark.parametrize("module", [False, True])
def test_a_forecast_comes_back_as_draws_of_it_would(scaler, module):
    torch.manual_seed(0)
    readings = 500 + 7 * torch.randn(40, 3, 2).double()
    fitted = scaler(axis=(0, 1)).fit(readings)
    fitted = ScalerModule(fitted) if module else fitted
    loc, scale = torch.randn(1, 3, 2).double(), torch.rand(1, 3, 2).double() + 0.1
    back = undo_scaler(Normal(loc, scale), fitted)
    draws = torch.randn(1000, 3, 2).double() * scale + loc
    returned = fitted.inverse_transform(draws)
    standard = ((draws - loc) / scale, (returned - back.loc) / back.scale)
    torch.testing.assert_close(*standard, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(fitted.transform(back.loc), loc)
