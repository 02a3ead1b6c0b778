"""The command that takes over weights from elsewhere."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from spikefold.adopt import OfficialInput, OfficialModel, from_official
from spikefold.cli._networks import require_free
from spikefold.cli._output import print_json, print_record
from spikefold.saving import save


@dataclass(frozen=True)
class ImportOptions:
    """Make a network file of a checkpoint from elsewhere."""

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """.pth file that holds a state dict"""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """where the network goes"""
    model: OfficialModel
    """architecture; classes, channels, width and kind of MPBN are those of the tensors"""
    origin: Annotated[Literal["official"], tyro.conf.arg(name="from")] = "official"
    """whose checkpoint: the official MPBN code's"""
    steps: int | None = None
    """time steps an image is shown, which no checkpoint says"""
    standardize: OfficialInput | None = None
    """have the network standardize its images, by the official constants"""
    overwrite: bool = False
    """replace the output if it is there"""
    json: bool = False
    """print one JSON object and nothing else on standard output"""


def import_command(words: list[str]) -> None:
    """Take over a checkpoint."""
    options = tyro.cli(ImportOptions, args=words, prog="spikefold import")
    require_free(options.output, options.overwrite)
    network = from_official(
        options.checkpoint, options.model, steps=options.steps, standardize=options.standardize
    )
    save(network, options.output)
    arguments = network.arguments
    record: dict[str, Any] = {
        "output": str(options.output),
        "model": network.name,
        "classes": arguments.num_classes,
        "in_channels": arguments.in_channels,
        "width": arguments.width,
        "norm": arguments.norm,
        "steps": arguments.steps,
        "standardize": options.standardize,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "dtype": str(network.classifier.weight.dtype).removeprefix("torch."),
    }
    if options.json:
        print_json(record)
    else:
        print_record(str(options.output), record)
