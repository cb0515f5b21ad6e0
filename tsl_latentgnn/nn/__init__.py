"""Layers of the latent-graph forecaster. They need torch and torch_geometric only."""

from .attending_decoder import AttendingDecoder
from .conv_smoother import ConvSmoother
from .custom_fourier_layer import CustomFourierLayer
from .gaussian_smoothing_layer import GaussianSmoothingLayer
from .horizon_readout import HorizonReadout
from .latent_correlation_gcn import LatentCorrelationGCN
from .latent_forecaster import Forecast, LatentForecaster
from .latent_graph import LatentGraph
from .latent_graph_encoder import LatentGraphEncoder
from .lstm_encoder import LSTMEncoder

__all__ = [
    "AttendingDecoder",
    "ConvSmoother",
    "CustomFourierLayer",
    "Forecast",
    "GaussianSmoothingLayer",
    "HorizonReadout",
    "LSTMEncoder",
    "LatentCorrelationGCN",
    "LatentForecaster",
    "LatentGraph",
    "LatentGraphEncoder",
]
