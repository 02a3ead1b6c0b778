"""The command that takes over networks from elsewhere."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from spikefold.adopt import (
    NIRSource,
    OfficialInput,
    OfficialModel,
    from_official,
    nir_model,
)
from spikefold.cli._output import print_json, print_record
from spikefold.cli._outputs import require_network_file
from spikefold.cli._parsing import Json, Overwrite, parse
from spikefold.errors import ConfigError
from spikefold.models import Network
from spikefold.ranges import require_within
from spikefold.saving import save


@dataclass(frozen=True)
class ImportOptions:
    """Make a network file of a checkpoint or a graph from elsewhere."""

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """.pth file that holds a state dict, or .nir file"""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """where the network goes"""
    model: OfficialModel | None = None
    """official: architecture; classes, channels, width and kind of MPBN are those of the tensors"""
    origin: Annotated[Literal["official", "nir"] | None, tyro.conf.arg(name="from")] = None
    """whose: a checkpoint of the official MPBN code, or a graph of the Neuromorphic Intermediate
    Representation; default: as the file's name ends (.nir), else official"""
    steps: int | None = None
    """time steps an input is shown, which no checkpoint says; default of a NIR graph: as it says,
    if spikefold wrote it"""
    standardize: OfficialInput | None = None
    """official: have the network standardize its images, by the official constants"""
    source: NIRSource | None = None
    """NIR: who wrote the graph, which decides the time step of its neurons; default: as it says"""
    overwrite: Overwrite = False
    json: Json = False

    def __post_init__(self) -> None:
        require_within("import", self, steps="[1, 10000]")
        if not self.is_nir and self.model is None:
            raise ConfigError(
                "import: --model says which architecture the checkpoint is of (of a NIR graph: "
                "--from nir)"
            )
        if not self.is_nir and self.source is not None:
            raise ConfigError("import: --source is for --from nir")
        if self.is_nir and (self.model or self.standardize):
            raise ConfigError("import: a NIR graph is whole: leave out --model and --standardize")

    @property
    def is_nir(self) -> bool:
        """Whether it is a graph, as is said or named."""
        return (self.origin or self.checkpoint.suffix.removeprefix(".")) == "nir"


def import_command(words: list[str]) -> None:
    """Take over a checkpoint or a graph."""
    options = parse(ImportOptions, words, "spikefold import")
    require_network_file(options.output, options.overwrite)
    network, about = _taken(options)
    save(network, options.output)
    arguments = network.arguments
    record: dict[str, Any] = {
        "output": str(options.output),
        "model": network.name,
        "classes": arguments.num_classes,
        "in_channels": arguments.in_channels,
        "steps": arguments.steps,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "dtype": str(next(network.parameters()).dtype).removeprefix("torch."),
        **about,
    }
    if options.json:
        print_json(record)
    elif options.is_nir:
        what = ", ".join(f"{count} {kind}" for kind, count in about["parts"].items())
        size = about["image_size"]
        print(
            f"{options.output}: {what}; {arguments.in_channels} channels, {size}x{size}, in "
            f"{arguments.steps} steps to {arguments.num_classes} classes"
        )
    else:
        print_record(str(options.output), record)


def _taken(options: ImportOptions) -> tuple[Network, dict[str, Any]]:
    """The network, and what records say besides."""
    if options.model is None:
        graph = nir_model(options.checkpoint, steps=options.steps, source=options.source)
        kinds = Counter(
            type(module).__name__ for module in graph.modules() if not list(module.children())
        )
        return graph, {"image_size": graph.arguments.image_size, "parts": dict(kinds)}
    network = from_official(
        options.checkpoint, options.model, steps=options.steps, standardize=options.standardize
    )
    about = {
        "width": network.arguments.width,
        "norm": network.arguments.norm,
        "standardize": options.standardize,
    }
    return network, about
