"""``python -m tsl_latentgnn.predict``, which is ``tsl-latentgnn predict`` now."""

import sys

from ..__main__ import main
from .._renamed import warn_renamed


def predict() -> None:
    """Forecast what the command line of 0.1 asks for."""
    warn_renamed("python -m tsl_latentgnn.predict", "tsl-latentgnn predict")
    main(["predict", *sys.argv[1:]])


if __name__ == "__main__":
    predict()
