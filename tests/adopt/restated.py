"""The official MPBN networks written down once more, as functions of tensors by their names.

From the paper's equations and the names of the official code's tensors; nothing of spikefold's
computes here, nothing of the official code is copied. Tensors are made up where they are first
asked for, so that a run writes a checkpoint.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

DECAY, THRESHOLD, EPS = 0.25, 0.5, 1e-5
CHANNELS = {
    "resnet18": [64, 128, 256, 512],
    "resnet19": [128, 256, 512],
    "resnet20": [64, 128, 256, 512],
    "resnet34": [64, 128, 256, 512],
}
BLOCKS = {
    "resnet18": [2, 2, 2, 2],
    "resnet19": [3, 3, 2],
    "resnet20": [2, 2, 2, 2],
    "resnet34": [3, 4, 6, 3],
}
VGG = [64, 64, "pool", 128, 128, "pool", *[256] * 3, "pool", *[512] * 3, "pool", *[512] * 3, "pool"]


class Official:
    """One of the official networks in evaluation.

    Arguments:
        model: which.
        divide: all channel numbers by this.
        classes: K.
        element: MPBN of each element, its tensors of shape `[C·H·W]`; else of each channel.
    """

    def __init__(self, model: str, divide: int, classes: int, element: bool = False) -> None:
        self.model = model
        self.divide = divide
        self.classes = classes
        self.element = element
        self.tensors: dict[str, Tensor] = {}
        self.spikes: list[Tensor] = []
        self.random = torch.Generator().manual_seed(7)

    def tensor(self, name: str, *shape: int, scale: float = 1.0, middle: float = 0.0) -> Tensor:
        if name not in self.tensors:
            drawn = torch.randn(shape, generator=self.random, dtype=torch.float64)
            self.tensors[name] = middle + scale * drawn
        assert tuple(self.tensors[name].shape) == shape, name
        return self.tensors[name]

    def convolution(
        self, x: Tensor, name: str, channels: int, kernel: int, stride: int = 1, bias: bool = False
    ) -> Tensor:
        shape = (channels, x.shape[2], kernel, kernel)
        weight = self.tensor(f"{name}.pool.weight", *shape, scale=(x.shape[2] * kernel**2) ** -0.5)
        added = self.tensor(f"{name}.pool.bias", channels, scale=0.1) if bias else None
        steps = [F.conv2d(x_t, weight, added, stride, kernel // 2) for x_t in x]
        return torch.stack(steps)

    def batch_norm(self, x: Tensor, name: str, gain: float = 1.0) -> Tensor:
        """Of `[..., size]`; statistics are made up near those of x, so that spikes tell images."""
        size = x.shape[-1]
        if f"{name}.bn.running_var" not in self.tensors:
            flat = x.reshape(-1, size)
            drawn = torch.rand(2, size, generator=self.random, dtype=torch.float64)
            self.tensors[f"{name}.bn.running_mean"] = flat.mean(0) + 0.1 * drawn[0]
            self.tensors[f"{name}.bn.running_var"] = flat.var(0) * (0.5 + drawn[1]) + 0.01
            self.tensors[f"{name}.bn.num_batches_tracked"] = torch.tensor(123)
        weight = self.tensor(f"{name}.bn.weight", size, scale=0.5, middle=gain)
        bias = self.tensor(f"{name}.bn.bias", size, scale=0.3, middle=0.3)
        mean, variance = (self.tensors[f"{name}.bn.running_{key}"] for key in ("mean", "var"))
        return (x - mean) / torch.sqrt(variance + EPS) * weight + bias

    def per_channel(self, x: Tensor, name: str) -> Tensor:
        return self.batch_norm(x.movedim(2, -1), name).movedim(-1, 2)

    def neurons(self, x: Tensor, name: str) -> Tensor:
        v, spikes = torch.zeros_like(x[0]), []
        for x_t in x:
            u = DECAY * v + x_t
            if self.element:
                h = self.batch_norm(u.flatten(1), name, 0.3).view_as(u)
            else:
                h = self.batch_norm(u.movedim(1, -1), name, 0.3).movedim(-1, 1)
            s = (h > THRESHOLD).double()
            v = u * (1 - s)
            spikes.append(s)
        self.spikes.append(torch.stack(spikes))
        return self.spikes[-1]

    def block(self, x: Tensor, name: str, channels: int, stride: int) -> Tensor:
        y = self.convolution(x, f"{name}.conv1", channels, 3, stride)
        y = self.neurons(self.per_channel(y, f"{name}.bn1"), f"{name}.relu1")
        y = self.per_channel(self.convolution(y, f"{name}.conv2", channels, 3), f"{name}.bn2")
        if stride > 1 and self.model == "resnet20":  # pooled, then a plain convolution
            x = torch.stack([F.avg_pool2d(x_t, 2, ceil_mode=True) for x_t in x])
            x = self.convolution(x, f"{name}.downsample.1", channels, 1)
            x = self.per_channel(x, f"{name}.downsample.2")
        elif stride > 1:
            x = self.convolution(x, f"{name}.downsample.0", channels, 1, stride)
            x = self.per_channel(x, f"{name}.downsample.1")
        return self.neurons(y + x, f"{name}.output_act")

    def stem(self, x: Tensor, channels: int) -> Tensor:
        if self.model == "resnet20":
            for first in (0, 3, 6):
                y = self.convolution(x, f"conv1.{first}", channels, 3)
                y = self.per_channel(y, f"conv1.{first + 1}")
                x = self.neurons(y, f"conv1.{first + 2}")
            return torch.stack([F.avg_pool2d(x_t, 2) for x_t in x])
        wide = self.model != "resnet19"
        y = self.convolution(x, "conv1", channels, 7 if wide else 3, 2 if wide else 1)
        x = self.neurons(self.per_channel(y, "bn1"), "relu")
        return torch.stack([F.avg_pool2d(x_t, 3, 2, 1) for x_t in x]) if wide else x

    def vgg(self, x: Tensor) -> Tensor:
        layer = 0
        for what in VGG:
            if isinstance(what, str):
                x = torch.stack([F.avg_pool2d(x_t, 2) for x_t in x])
                layer += 1
                continue
            channels = what // self.divide
            y = self.convolution(x, f"features.{layer}", channels, 3, bias=True)
            y = self.per_channel(y, f"features.{layer + 1}")
            x = self.neurons(y, f"features.{layer + 2}")
            layer += 3
        return x

    def __call__(self, images: Tensor, steps: int) -> Tensor:
        """Logits; the spikes of all layers are in `spikes`, in order."""
        self.spikes = []
        x = torch.stack([images] * steps)
        if self.model == "vgg16":
            x, readout = self.vgg(x), "classifier.conv"
        else:
            widths = [channels // self.divide for channels in CHANNELS[self.model]]
            x, readout = self.stem(x, widths[0]), "fc.conv"
            for stage, (channels, blocks) in enumerate(
                zip(widths, BLOCKS[self.model], strict=True)
            ):
                for block in range(blocks):
                    stride = 2 if stage and not block else 1
                    x = self.block(x, f"layer{stage + 1}.{block}", channels, stride)
        features = x.mean((3, 4))
        weight = self.tensor(f"{readout}.weight", self.classes, features.shape[2])
        bias = self.tensor(f"{readout}.bias", self.classes)
        return torch.stack([f_t @ weight.T + bias for f_t in features]).mean(0)
