"""Random changes to training images, batched and seeded."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def random_crop(
    images: Float[Tensor, "N C H W"], padding: int, generator: torch.Generator
) -> Float[Tensor, "N C H W"]:
    """Shift each image by up to `padding` pixels each way; zeros come in at the edges.

    Arguments:
        images: a batch.
        padding: zeros put around, of which a random crop of the old size is taken.
        generator: source of the shifts, on the CPU.
    """
    n, _, height, width = images.shape
    offsets = torch.randint(2 * padding + 1, (2, n), generator=generator).to(images.device)
    rows = (offsets[0, :, None] + torch.arange(height, device=images.device))[:, :, None]
    columns = (offsets[1, :, None] + torch.arange(width, device=images.device))[:, None, :]
    padded = F.pad(images, (padding,) * 4).permute(0, 2, 3, 1)
    sample = torch.arange(n, device=images.device)[:, None, None]
    return padded[sample, rows, columns].permute(0, 3, 1, 2).contiguous()
