"""What commands on network files run them on: data sets and files, read as the networks say."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import Tensor, nn

from spikefold.cli._configuration import one_of
from spikefold.cli._output import print_error
from spikefold.cli._parsing import Device
from spikefold.data import (
    DATASETS,
    Dataset,
    Framing,
    InputSpec,
    SplitName,
    find_dataset,
    fitted,
    known_shape,
    load_dataset,
    require_shape,
)
from spikefold.errors import ConfigError, DataError
from spikefold.export import RUNTIMES, deploy, require_installed
from spikefold.models import Network
from spikefold.ranges import require_within
from spikefold.records import BEST, CONFIG, FOLDED
from spikefold.saving import load
from spikefold.training import DataConfig, Experiment

# of a run's folder: what is run, and what transforms start from
SHIPPED, TRAINED = (FOLDED, BEST), (BEST,)
RuntimeName = Annotated[str, tyro.conf.arg(metavar=one_of(RUNTIMES))]


@dataclass(frozen=True)
class DataOptions:
    """What a network is run on, and where."""

    data: Annotated[str | None, tyro.conf.arg(metavar=one_of(DATASETS))] = None
    """name of the data set; default: that of the run in whose folder the network lies"""
    root: Path | None = None
    """folder in which it lies"""
    frames_by: Literal["time", "count"] | None = None
    """event frames of equal time or count of events; default: the network's own"""
    batch_size: int = 128
    """samples at a time"""
    device: Device = "cpu"

    def __post_init__(self) -> None:
        require_within("data", self, batch_size="[1, 1000000]")


def load_network(path: Path, device: str, names: Sequence[str] = SHIPPED) -> Network:
    """The network of a file, on a device.

    Arguments:
        path: network file or run's folder.
        device: as torch names it.
        names: as for `network_file`.
    """
    return load(network_file(path, names)).to(_device(device))


def require_runs_by(runtime: str | None, device: str) -> None:
    """Refuse `--runtime` where it cannot be, before data are read, or even downloaded, for it.

    Arguments:
        runtime: its name; None: torch.
        device: that was asked for.
    """
    if runtime is None:
        return
    if device != "cpu":
        raise ConfigError(f"--runtime {runtime} runs on the CPU: leave out --device")
    require_installed(runtime)


def run_by(
    runtime: str, network: nn.Module, x: Tensor, steps: int | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """A network as another runtime runs it, and what records say of that.

    Arguments:
        runtime: its name.
        network: folded.
        x: inputs on which it is checked.
        steps: T of images, where the network does not know it.
    """
    deployed = deploy(network, x, runtime, steps=steps)
    file = deployed.record.file
    about = {
        "runtime": runtime,
        "checked": {"samples": deployed.record.samples, "first_flips": file.first},
    }
    return deployed, about


def network_file(path: Path, names: Sequence[str] = SHIPPED) -> Path:
    """The file itself; of a run's folder the first of some that is there.

    Arguments:
        path: network file or run's folder.
        names: of files in the folder.
    """
    if not path.is_dir():
        return path
    for name in names:
        if (path / name).is_file():
            return path / name
    raise ConfigError(
        f"{path}: a folder without {' or '.join(names)}: not a run's, or not trained yet"
    )


def load_data_for(network: Network, path: Path, options: DataOptions, split: SplitName) -> Dataset:
    """The data set in the network's form, if it fits; only what the split needs.

    Arguments:
        network: says how its input is read.
        path: file or run's folder it is from.
        options: which data set, where it lies.
        split: what is needed of it.
    """
    config = _config(path, options)
    root = None if config.root is None else Path(config.root)
    spec = network.input_spec or assumed_spec(network)
    own = find_dataset(config.name).framing
    framing = Framing(by=options.frames_by)
    if own is not None and (own.steps is None) == (spec.framing.steps is None):
        framing = replace(framing.over(spec.framing), sensor=own.sensor or spec.framing.sensor)
    shape = known_shape(config.name, framing)
    if shape is not None:  # before anything is read or downloaded
        with _about(path):
            require_shape(config.name, shape, spec)
    dataset = load_dataset(
        config.name, config.validation, config.split_seed, root, framing, only=split
    )
    with _about(path):
        dataset = fitted(dataset, spec)
    if dataset.notes:
        print_error(f"note: {dataset.notes}")
    return dataset


@contextmanager
def _about(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def assumed_spec(network: Network, steps: int | None = None) -> InputSpec:
    """Of a network whose file does not say how its input is read.

    Arguments:
        network: two channels are taken for those of events.
        steps: of frames; default: the network's own.
    """
    arguments = network.arguments
    steps = (steps or arguments.steps) if arguments.in_channels == 2 else None
    names = tuple(map(str, range(arguments.num_classes)))
    return InputSpec(arguments.in_channels, Framing(steps, arguments.image_size), names)


def _config(path: Path, options: DataOptions) -> DataConfig:
    """Which data set, and how it is split: as the options say, or the run."""
    recorded = (path if path.is_dir() else path.parent) / CONFIG
    run = Experiment.load(recorded).data if recorded.is_file() or path.is_dir() else None
    if run is not None and options.data in (None, run.name):
        config = run
    elif options.data is not None:
        config = DataConfig(options.data)
    else:
        raise ConfigError(f"{path} is not in a run's folder: --data names the data set")
    return config if options.root is None else replace(config, root=str(options.root))


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"--device {name}: not here: cpu always is; cuda, or cuda:1, where torch finds a GPU"
        ) from error
    return device
