"""Training on Lightning Fabric: configuration, loop, checkpoints, and measurements."""

from spikefold.training._checkpoint import (
    TrainingState,
    read_checkpoint,
    restore_checkpoint,
    save_checkpoint,
)
from spikefold.training._config import (
    DataConfig,
    Experiment,
    HardwareConfig,
    ModelConfig,
    OptimizerConfig,
)
from spikefold.training._epoch import first_non_finite_layer
from spikefold.training._evaluate import evaluate, like_weights, recalibrate
from spikefold.training._landscape import Landscape, LandscapeConfig, landscape
from spikefold.training._loop import train
from spikefold.training._measure import hardware, potentials, raster, thresholds, time_in_turns
from spikefold.training._optimizer import learning_rate, make_average, make_optimizer
from spikefold.training._processes import device_of, is_launched
from spikefold.training._progress import Advance, Progress, Silent
from spikefold.training._resume import differences, require_continued

__all__ = [
    "Advance",
    "DataConfig",
    "Experiment",
    "HardwareConfig",
    "Landscape",
    "LandscapeConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Progress",
    "Silent",
    "TrainingState",
    "device_of",
    "differences",
    "evaluate",
    "first_non_finite_layer",
    "hardware",
    "is_launched",
    "landscape",
    "learning_rate",
    "like_weights",
    "make_average",
    "make_optimizer",
    "potentials",
    "raster",
    "read_checkpoint",
    "recalibrate",
    "require_continued",
    "restore_checkpoint",
    "save_checkpoint",
    "thresholds",
    "time_in_turns",
    "train",
]
