"""Training on Lightning Fabric: configuration, loop, checkpoints, and measurements."""

from spikefold.training._checkpoint import TrainingState, restore_checkpoint, save_checkpoint
from spikefold.training._config import (
    DataConfig,
    Experiment,
    ModelConfig,
    OptimizerConfig,
    differences,
)
from spikefold.training._loop import (
    BEST,
    CONFIG,
    LAST,
    METRICS,
    cosine,
    evaluate,
    make_optimizer,
    train,
)
from spikefold.training._measure import hardware, potentials, thresholds, time_in_turns
from spikefold.training._progress import Advance, Progress, Silent

__all__ = [
    "BEST",
    "CONFIG",
    "LAST",
    "METRICS",
    "Advance",
    "DataConfig",
    "Experiment",
    "ModelConfig",
    "OptimizerConfig",
    "Progress",
    "Silent",
    "TrainingState",
    "cosine",
    "differences",
    "evaluate",
    "hardware",
    "make_optimizer",
    "potentials",
    "restore_checkpoint",
    "save_checkpoint",
    "thresholds",
    "time_in_turns",
    "train",
]
