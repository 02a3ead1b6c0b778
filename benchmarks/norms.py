"""Suite "norms": norms after the connection, alone and with MPBN, in training and after the fold.

Networks are those of the comparison in docs/results: resnet20 on still images in channels last,
compact on recordings of events.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import spikefold as sf
from benchmarks.contestant import SEED, Contestant, Contestants
from benchmarks.deploy import inputs
from benchmarks.networks import CLASSES, LEARNING_RATE

CURRENT = ("bn", "tdbn", "bntt", "tebn", "tab")


def contestants(size: dict[str, Any], device: torch.device, train: bool) -> Contestants:
    """A network for each pair of norms.

    Arguments:
        size: model, width, batch and steps.
        device: where everything lies.
        train: whole training steps; else forward passes of what is left after fold and fusion.
    """
    images = inputs(size, size["batch"]).to(device)
    images = images.to(memory_format=layout_of(images))

    def making(current: str, membrane: str) -> Callable[[], Contestant]:
        def make() -> Contestant:
            network = trained(size, images, current, membrane)
            return training(network, images) if train else shipped(network, images)

        return make

    how = "" if train else ", shipped"
    return {
        f"{current}{plus}{how}": making(current, membrane)
        for current in CURRENT
        for plus, membrane in (("", "none"), (" + mpbn", "mpbn"))
    }


def layout_of(images: Tensor) -> torch.memory_format:
    """Channels last of stills; of recordings, which have five axes, there is no such layout."""
    return torch.channels_last if images.dim() == 4 else torch.contiguous_format


def trained(size: dict[str, Any], images: Tensor, current: str, membrane: str) -> nn.Module:
    """With random weights, and running statistics of the images."""
    torch.manual_seed(SEED)
    network = getattr(sf.models, size["model"])(
        CLASSES,
        in_channels=images.shape[-3],
        width=size["width"],
        steps=size["steps"],
        norm=membrane,
        current_norm=current,
    ).to(images)
    network = network.to(memory_format=layout_of(images))
    with torch.no_grad():
        for _ in range(8):
            network(images)
    return network


def training(network: nn.Module, images: Tensor) -> Contestant:
    """Forward, cross entropy, backward, SGD."""
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, momentum=0.9)
    labels = torch.arange(images.shape[-4], device=images.device) % CLASSES

    def run() -> None:
        optimizer.zero_grad()
        cross_entropy(network(images), labels).backward()
        optimizer.step()

    return Contestant(run)


def shipped(network: nn.Module, images: Tensor) -> Contestant:
    """Folded and fused as far as that goes."""
    network = network.eval()
    if any(isinstance(module, sf.MPBN) for module in network.modules()):
        network = sf.fold(network)
    if sf.folding.is_fusable(network):
        network = sf.fuse_conv_bn(network)

    @torch.inference_mode()
    def run() -> Tensor:
        return network(images)

    return Contestant(run)
