"""Spatio-temporal forecasting with a learned latent graph.

The package imports nothing by itself: :mod:`tsl_latentgnn.nn` needs torch and torch_geometric only, while
:class:`tsl_latentgnn.models.LatentGNNModel` and :mod:`tsl_latentgnn.engines` bring in tsl.
"""

__version__ = "0.1.0"
