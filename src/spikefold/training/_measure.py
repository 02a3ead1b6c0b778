"""What a run records about its networks besides accuracy: potentials, thresholds, time."""

import math
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from spikefold import dynamics
from spikefold.dynamics import Condition, Neuron
from spikefold.folding import evaluation
from spikefold.models import Network
from spikefold.nn import Call, FoldedLIF, observing
from spikefold.training._evaluate import like_weights

BINS = 80
# neurons of a layer that a raster shows
SHOWN = 64


def potentials(network: Network, x: Tensor) -> dict[str, Any]:
    """Distribution of the membrane potential before and after MPBN, per layer.

    Beside it that of the currents, which the norm after the connection has regulated: whether the
    membrane's update undoes that is what MPBN is about (Guo et al. 2023, section 3).

    Arguments:
        network: not folded.
        x: images or frames to run.

    Returns:
        by layer: the threshold, and for "currents" (x), "before" (u) and "after" (h; only with
        MPBN) the edges of the bins, the density in each, mean and deviation, and in `steps` mean
        and deviation at each time step.
    """
    layers: dict[str, tuple[Neuron, bool]] = {}
    values: dict[str, tuple[list[Tensor], list[Tensor], list[Tensor]]] = {}

    def see(name: str, call: Call) -> None:
        try:
            condition = call.neuron.condition()
        except NotImplementedError:
            # Neurons with an `integrate` of their own have no potential to look at.
            return
        if condition.theta is not None:
            return
        layers[name] = (call.neuron.constants, condition.norm is not None)
        inputs, before, after = values.setdefault(name, ([], [], []))
        v = None
        if call.state is not None:
            v = call.state.v
            condition = call.state.part(condition, call.currents.steps, "these neurons")
        potential = condition.potential

        def note(u: Tensor, t: int) -> tuple[Tensor, None]:
            h, _ = potential(u, t)
            before.append(u)
            after.append(h)
            return h, None

        currents, _ = dynamics.compute(call.currents)
        inputs.extend(currents)
        dynamics.integrate(
            currents, Condition(note), call.neuron.constants, v, decay=call.neuron.decay()
        )

    with evaluation(network) as network, observing(network, see):
        network(like_weights(network, x))
    record: dict[str, Any] = {}
    for name, (constants, has_norm) in layers.items():
        parts = dict(zip(("currents", "before", "after"), values[name], strict=True))
        if not has_norm:
            del parts["after"]
        record[name] = {
            "threshold": constants.threshold,
            **{part: _histogram(steps) for part, steps in parts.items()},
        }
    return record


def _histogram(values: list[Tensor]) -> dict[str, Any]:
    """Of the values of all time steps."""
    flat = torch.cat([value.flatten() for value in values]).float().cpu()
    ordered = flat.sort().values
    low = ordered[int(0.001 * (len(flat) - 1))].item()
    high = ordered[math.ceil(0.999 * (len(flat) - 1))].item()
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts = torch.histc(flat, BINS, low, high)
    density = counts / (len(flat) * (high - low) / BINS)
    edges = torch.linspace(low, high, BINS + 1)
    return {
        "edges": edges.tolist(),
        "density": density.tolist(),
        "mean": flat.mean().item(),
        "deviation": flat.std(correction=0).item(),
        "steps": [
            {"mean": step.float().mean().item(), "deviation": step.float().std(correction=0).item()}
            for step in values
        ],
    }


def raster(network: Network, x: Tensor) -> dict[str, Any]:
    """When the neurons of each layer fire for one sample, for a picture.

    Arguments:
        network: folded or not.
        x: an image or frames, as a batch of one.

    Returns:
        `predicted`, the class; by layer the `shape` of its neurons, which of these are shown
        (`neurons`: evenly spaced among all, counted in the order of the shape) and for each time
        step those of the shown that fire (`fired`: their places in `neurons`).
    """
    spikes: dict[str, list[Tensor]] = {}

    def see(name: str, call: Call) -> None:
        spikes.setdefault(name, []).append(call.fired.spikes[:, 0])

    with evaluation(network) as network, observing(network, see):
        logits = network(like_weights(network, x))
    layers = {name: _shown(torch.cat(calls)) for name, calls in spikes.items()}
    return {"predicted": int(logits[0].argmax()), "layers": layers}


def _shown(spikes: Tensor) -> dict[str, Any]:
    """What `raster` tells of a layer's spikes `[T, *shape]`."""
    flat = spikes.flatten(1)
    count = min(flat.shape[1], SHOWN)
    neurons = torch.arange(count) * flat.shape[1] // count
    fired = flat[:, neurons.to(flat.device)] > 0
    return {
        "shape": list(spikes.shape[1:]),
        "neurons": neurons.tolist(),
        "fired": [step.nonzero().flatten().tolist() for step in fired],
    }


def thresholds(folded: nn.Module) -> dict[str, Any]:
    """Folded thresholds and polarities, per layer; ±inf as strings, because JSON has none.

    Arguments:
        folded: a network.

    Returns:
        by layer the `threshold` before the fold, `theta` of all neurons (those of `steps` time
        steps one after another, where that is not None), and how many have a negative polarity.
    """
    record = {}
    for name, module in folded.named_modules():
        if isinstance(module, FoldedLIF):
            theta = module.theta.flatten().tolist()
            negative = int((module.polarity < 0).sum())
            record[name] = {
                "threshold": module.constants.threshold,
                "steps": module.steps,
                "theta": [value if math.isfinite(value) else str(value) for value in theta],
                "negative_polarity": negative,
            }
    return record


@torch.no_grad()
def time_in_turns(
    networks: dict[str, Network],
    x: Tensor,
    *,
    rounds: int = 80,
    calls: int = 1,
    on_round: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Time of a forward pass per sample on one thread or a GPU, the networks taking turns.

    One thread, because the CPU time of a thread that waits for another counts as well.

    Arguments:
        networks: by name, in evaluation mode; the first one is the reference of the ratios.
        x: one batch.
        rounds: turns each network gets.
        calls: forward passes a turn.
        on_round: called after each, for progress.

    Returns:
        by network: minimum CPU and median wall time in seconds per sample, and the ratios of both
        to the first network's; with device, threads and batch.
    """
    cpu: dict[str, list[float]] = {name: [] for name in networks}
    wall: dict[str, list[float]] = {name: [] for name in networks}
    names = list(networks)
    # Of images [N, C, H, W] or frames [T, N, C, H, W].
    count = x.shape[-4]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        x = like_weights(networks[names[0]], x)
        for network in networks.values():
            network(x)
        for turn in range(rounds):
            # in turns and to and fro, because other work on the machine comes and goes
            for name in names if turn % 2 else reversed(names):
                _wait(x.device)
                cpu_start, wall_start = time.process_time(), time.perf_counter()
                for _ in range(calls):
                    networks[name](x)
                _wait(x.device)
                cpu[name].append((time.process_time() - cpu_start) / calls / count)
                wall[name].append((time.perf_counter() - wall_start) / calls / count)
            on_round()
    finally:
        torch.set_num_threads(threads)
    reference = names[0]
    result = {
        name: {
            "cpu_seconds": min(cpu[name]),
            "wall_seconds": statistics.median(wall[name]),
            "cpu_ratio": min(cpu[name]) / min(cpu[reference]),
            "wall_ratio": statistics.median(wall[name]) / statistics.median(wall[reference]),
        }
        for name in names
    }
    return {
        "device": x.device.type,
        "batch": count,
        "threads": 1,
        "rounds": rounds,
        "calls": calls,
        "networks": result,
    }


def _wait(device: torch.device) -> None:
    """Wait for a GPU, on which a call returns before its work is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def hardware(device: torch.device) -> dict[str, Any]:
    """Machine and versions, for a run record.

    Arguments:
        device: that computed.
    """
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "system": platform.system(),
        "threads": torch.get_num_threads(),
        "neurons": "fused" if dynamics.missing_kernels(device.type) is None else "reference",
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "spikefold": version("spikefold"),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
