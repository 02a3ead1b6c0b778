"""Draws README's picture: python docs/pictures/fold.py runs/digits docs/pictures/fold.png."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import spikefold as sf
from spikefold.data import load_dataset
from spikefold.nn import observing

LAYER, CHANNELS = "features.5.lif", 5


def potentials(network, images):
    """The potential of some channels of a layer before firing, of all samples, steps and places."""
    seen = []

    def see(name, call):
        if name == LAYER:
            currents, _ = sf.dynamics.compute(call.currents)
            v = torch.zeros_like(currents[0])
            for x, s in zip(currents, call.fired.spikes, strict=True):
                u = network.get_submodule(LAYER).constants.decay * v + x
                v = u * (1 - s)
                seen.append(u)

    with torch.no_grad(), observing(network, see):
        network(images)
    return torch.stack(seen).movedim(2, 0).flatten(1).numpy()


def main():
    run, out = Path(sys.argv[1]), Path(sys.argv[2])
    network, folded = (sf.load(run / f"{name}.safetensors") for name in ("best", "folded"))
    u = potentials(network, load_dataset("digits").validation.read(torch.arange(100)))
    norm, theta = network.get_submodule(LAYER).norm, folded.get_submodule(LAYER).theta.numpy()
    gain = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().numpy()
    shift = norm.bias.detach().numpy() - gain * norm.running_mean.numpy()
    usual = np.argsort(np.where(gain > 0, theta, np.inf))[: (gain > 0).sum()]
    order = usual[np.linspace(1, len(usual) - 2, CHANNELS).round().astype(int)]
    low, high = np.quantile(u[order], [0.005, 0.995])
    grid = np.linspace(low, high, 200)
    threshold = network.get_submodule(LAYER).constants.threshold
    colours = plt.get_cmap("viridis")(np.linspace(0.1, 0.85, len(order)))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.3), layout="constrained")
    for colour, c in zip(colours, order, strict=True):
        left.plot(grid, gain[c] * grid + shift[c], color=colour)
        left.plot(theta[c], threshold, "o", color=colour)
    left.axhline(threshold, color="gray", linestyle="--")
    left.annotate(
        "threshold", (low, threshold), (2, 3), textcoords="offset points", color="dimgray"
    )
    left.set(
        title="in training: fire where MPBN(u) > threshold", ylabel="MPBN(u)", xlabel="membrane u"
    )
    bins = np.linspace(low, high, 90)
    for place, (colour, c) in enumerate(zip(colours, order, strict=True)):
        density, _ = np.histogram(u[c], bins, density=True)
        density = 0.85 * density / density.max()
        right.fill_between(bins[:-1], place, place + density, step="post", color=colour, alpha=0.5)
        right.plot([theta[c], theta[c]], [place, place + 0.95], color=colour, linewidth=2.5)
    right.set(
        title="folded: fire where u > θ of the channel", xlabel="membrane u", yticks=[],
        ylabel="channels",
    )  # fmt: skip
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(low, high)
    figure.savefig(out, dpi=160)


main()
