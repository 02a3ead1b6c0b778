"""SGD as in the paper, or AdamW; schedules; and the moving average of the weights."""

import math

import torch
from torch import Tensor, nn
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


def connection_weights(network: nn.Module) -> dict[str, Tensor]:
    """The weights of convolutions and linear layers, in the order in which they are registered.

    Arguments:
        network: any.

    Returns:
        by the layer's name.
    """
    return {
        name: module.weight
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear)
    }


def make_optimizer(network: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """SGD or AdamW; weight decay on the weights of convolutions and linear layers only."""
    decayed = list(connection_weights(network).values())
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
