"""The old name of :mod:`tsl_latentgnn.forecaster`, until 0.3."""

from .._renamed import moved

__getattr__ = moved(
    __name__,
    {
        "Forecaster": "forecaster.CheckpointForecaster",
        "read_rows": "forecaster.read_rows",
        "roll": "forecaster.roll",
    },
)
