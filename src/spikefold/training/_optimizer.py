"""SGD as in the paper, or AdamW; schedules; and the moving average of the weights."""

import math

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from spikefold.training._config import OptimizerConfig


def learning_rate(config: OptimizerConfig, epoch: int) -> float:
    """Learning rate of an epoch (from 0): linear warm-up, then lr, or lr (1 + cos(π done)) / 2."""
    if epoch < config.warmup_epochs:
        return config.learning_rate * (epoch + 1) / (config.warmup_epochs + 1)
    if config.schedule == "constant":
        return config.learning_rate
    progress = (epoch - config.warmup_epochs) / (config.epochs - config.warmup_epochs)
    return config.learning_rate * (1 + math.cos(math.pi * progress)) / 2


def make_optimizer(network: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """SGD or AdamW; weight decay on the weights of convolutions and linear layers only."""
    decayed = [
        module.weight
        for module in network.modules()
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear)
    ]
    identities = {id(weight) for weight in decayed}
    others = [p for p in network.parameters() if id(p) not in identities]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if config.name == "adamw":
        betas = (config.momentum, config.beta2)
        return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas)
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)


def make_average(network: nn.Module, config: OptimizerConfig) -> AveragedModel | None:
    """The exponential moving average of the weights, if asked for; it takes over the statistics."""
    if not config.ema_decay:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
