"""Training engines for tsl, and what makes any Lightning training go on exactly after it was ended.

:class:`RunState` shows how the pieces go together.
"""

from .callbacks import DataCard, DenseStart
from .checkpoint import model_differences, read_checkpoint
from .group_lasso import GroupLasso
from .memory import MemoryWarning
from .predictor import LatentGNNPredictor
from .processes import EndTogether, SharedBatches, SharedDataModule, SharedLoss, share_loss
from .resume import RunState, Stopping, exit_on_sigterm
from .run_checkpoints import BestCheckpoint, RunCheckpointIO, check_fits, hold
from .usual import add_profile

__all__ = [
    "BestCheckpoint",
    "DataCard",
    "DenseStart",
    "EndTogether",
    "GroupLasso",
    "LatentGNNPredictor",
    "MemoryWarning",
    "RunCheckpointIO",
    "RunState",
    "SharedBatches",
    "SharedDataModule",
    "SharedLoss",
    "Stopping",
    "add_profile",
    "check_fits",
    "exit_on_sigterm",
    "hold",
    "model_differences",
    "read_checkpoint",
    "share_loss",
]
