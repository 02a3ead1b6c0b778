"""Suite 6: folded and fused networks as they are deployed, beside their convolutions alone."""

import copy
import tempfile
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

import spikefold as sf
from benchmarks import networks
from benchmarks.check import watching
from benchmarks.contestant import SEED, Check, Contestant, Contestants, generator, randomize

# channels and size of what a model sees; compact sees frames of events, the others images
SEEN = {"small": (1, 8), "resnet20": (3, 32), "compact": (2, 34)}
DIFFER = 1e-4  # share of decisions that fusing may change


def contestants(size: dict[str, Any], device: torch.device) -> Contestants:
    """A network in eager mode, prepared, by others; and its convolutions and linear layer alone.

    Those of other programs take part where these are installed.

    Arguments:
        size: model, width, batch and steps.
        device: where everything lies.
    """
    images = inputs(size, size["batch"]).to(device)
    network = cache(lambda: trained(size, device))
    deployed = cache(lambda: sf.fuse_conv_bn(sf.fold(network())))
    return {
        "eager": lambda: eager(network(), deployed(), images),
        "prepared": lambda: prepared(deployed(), images),
        "prepared, channels last": lambda: prepared(channels_last(deployed()), images),
        "AOTInductor": lambda: compiled(deployed(), images),
        **{
            name: partial(by_runtime, network, images, name)
            for name in ("onnxruntime", "openvino")
            if device.type == "cpu" and find_spec(name)
        },
        "SpikingJelly, folded": lambda: jelly(network(), images, size["steps"]),
        "convolutions": lambda: convolutions(deployed(), images),
    }


def inputs(size: dict[str, Any], count: int) -> Tensor:
    """So many random images `[N, C, H, W]`, or recordings `[T, N, C, H, W]`."""
    channels, pixels = SEEN[size["model"]]
    shape = (count, channels, pixels, pixels)
    if size["model"] == "compact":
        shape = (size["steps"], *shape)
    return torch.rand(shape, generator=generator())


def trained(size: dict[str, Any], device: torch.device) -> nn.Module:
    """A network with random gains, and running statistics of random images."""
    torch.manual_seed(SEED)
    model = getattr(sf.models, size["model"])
    network = model(
        in_channels=SEEN[size["model"]][0], width=size["width"], steps=size["steps"]
    ).to(device)
    for module in network.modules():
        if isinstance(module, sf.MPBN):
            randomize(module)
    with torch.no_grad():
        for _ in range(8):
            network(torch.rand_like(inputs(size, 8)).to(device))
    return network.eval()


def eager(network: nn.Module, deployed: nn.Module, images: Tensor) -> Contestant:
    """The network as a module; its decisions are compared with those before it was folded."""

    @torch.inference_mode()
    def run() -> Tensor:
        return deployed(images)

    def check() -> Check:
        record = sf.verify(network, deployed, [images])
        what = f"{record.mismatches} of {record.spikes} decisions differ"
        return Check(record.mismatches <= DIFFER * record.spikes, what)

    return Contestant(run, check)


def channels_last(network: nn.Module) -> nn.Module:
    """A copy whose weights lie so, and with them all that its convolutions give."""
    return copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def prepared(deployed: nn.Module, images: Tensor) -> Contestant:
    """The prepared network, which must give the logits of the module to the bit."""
    ready = sf.prepare(deployed, images)

    def check() -> Check:
        with torch.no_grad():
            same = torch.equal(ready(images), deployed(images))
        return Check(same, "the same logits" if same else "other logits")

    return Contestant(lambda: ready(images), check)


def compiled(deployed: nn.Module, images: Tensor) -> Contestant:
    """The network's program compiled by AOTInductor, which takes minutes."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/network.pt2"
        sf.to_torch(deployed, path, compile=True, example=images)
        program = torch._inductor.aoti_load_package(path)
    images = images.contiguous()

    @torch.inference_mode()
    def run() -> Tensor:
        return program(images)

    def check() -> Check:
        with torch.no_grad():
            expected = deployed(images)
        differ = int((run().argmax(1) != expected.argmax(1)).sum())
        return Check(differ == 0, f"{differ} of {len(expected)} classes differ")

    return Contestant(run, check)


def by_runtime(network: Callable[[], nn.Module], images: Tensor, runtime: str) -> Contestant:
    """The folded network as an ONNX file with fused weights, run by another program."""
    ready = sf.deploy(sf.fold(network()), images, runtime, fuse=True)

    def check() -> Check:
        record = ready.record
        what = f"{record.file.differ} of {record.file.decisions} decisions differ"
        return Check(record.passed, what)

    return Contestant(lambda: ready(images), check)


def jelly(network: nn.Module, images: Tensor, steps: int) -> Contestant:
    """SpikingJelly's network after its own fold, which takes frames."""
    frames = images if images.ndim == 5 else images.expand(steps, *images.shape)
    return networks.logits(networks.jelly_folded(network), network, frames)


def convolutions(deployed: nn.Module, images: Tensor) -> Contestant:
    """The floor: convolutions and linear layer called as modules, on the network's own inputs."""
    modules = [m for m in deployed.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad(), watching(modules) as calls:
        deployed(images)
    work = [(call.module, call.x.clone()) for call in calls]

    @torch.inference_mode()
    def run() -> None:
        for module, x in work:
            module(x)

    return Contestant(run)
