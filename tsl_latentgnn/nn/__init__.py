"""Layers of the latent-graph forecaster. They need torch and torch_geometric only."""

from .._renamed import moved
from .forecast import Forecast
from .fourier import CustomFourierLayer
from .graph_learner import Edges, GraphLearner
from .lag_path import LagPath
from .latent_correlation_gcn import LatentCorrelationGCN
from .latent_graph import LatentGraph
from .latent_graph_encoder import LatentGraphEncoder
from .readout import HorizonReadout
from .recurrent import AttendingDecoder, LSTMEncoder
from .smoothing import ConvSmoother, GaussianSmoothingLayer

__all__ = [
    "AttendingDecoder",
    "ConvSmoother",
    "CustomFourierLayer",
    "Edges",
    "Forecast",
    "GaussianSmoothingLayer",
    "GraphLearner",
    "HorizonReadout",
    "LSTMEncoder",
    "LagPath",
    "LatentCorrelationGCN",
    "LatentGraph",
    "LatentGraphEncoder",
]

__getattr__ = moved(__name__, {"LatentForecaster": "models.LatentForecaster"})
