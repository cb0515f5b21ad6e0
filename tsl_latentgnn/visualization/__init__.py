"""Figures of learned graphs and forecasts; needs ``pip install "tsl-latentgnn[viz]"``.

Every function returns the matplotlib object that it drew on: ``plt.show()`` shows it, ``savefig`` of the figure writes
it. Pass ``ax`` to place it in a figure of your own. matplotlib is imported when the first figure is drawn.
"""

from .attention import plot_attention, plot_learned_and_true
from .forecast import plot_forecast
from .graph import plot_graph
from .movie import save_attention_movie
from .reliability import plot_reliability

__all__ = [
    "plot_attention",
    "plot_forecast",
    "plot_graph",
    "plot_learned_and_true",
    "plot_reliability",
    "save_attention_movie",
]
