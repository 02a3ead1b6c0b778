"""Checkpoints of the official MPBN code: the same networks, under other names.

The official code wraps every layer: a convolution is `pool` of a wrapper, the batch norm after it
`bn` of another, the MPBN `bn` of the neurons. Its tensors are copied as they are.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from spikefold.adopt._checkpoint import read_checkpoint, tensors
from spikefold.dynamics import Neuron
from spikefold.errors import AdoptError, ConfigError
from spikefold.models import MODELS, BasicBlock, Network, Norm
from spikefold.nn import SpikingLayer

OfficialModel = Literal["resnet18", "resnet19", "resnet20", "resnet34", "vgg16"]
OFFICIAL_MODELS: tuple[OfficialModel, ...] = get_args(OfficialModel)

OfficialInput = Literal["cifar10", "cifar100"]
Channels = tuple[float, ...]

# Mean and deviation by which the official code standardizes its images in [0, 1].
STANDARDIZATIONS: dict[OfficialInput, tuple[Channels, Channels]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}


def from_official(
    checkpoint: Mapping[str, Any] | str | Path,
    model: OfficialModel = "resnet20",
    *,
    steps: int | None = None,
    standardize: OfficialInput | tuple[Channels, Channels] | None = None,
    neuron: Neuron | None = None,
) -> Network:
    """A network with the weights of a checkpoint of the official MPBN code.

    Number of classes, input channels, width, dtype, and whether MPBN is channel-wise or
    element-wise are those of the tensors. What no checkpoint says are arguments.

    Arguments:
        checkpoint: state dict of a `SpikeModel`, a mapping that holds one, or the `.pth` file.
        model: one of `adopt.OFFICIAL_MODELS`.
        steps: T, for images; default: `network(images, steps=T)` says it.
        standardize: the official code standardizes images before the network sees them: "cifar10"
            or "cifar100" for its constants, or mean and deviation of each channel, to have the
            network do it; None: it is given what the official one was given.
        neuron: constants; default: the official ones.

    Returns:
        the network, in evaluation mode, on the CPU.

    Raises:
        AdoptError: if a tensor is missing, left over or of the wrong shape or dtype; names it.
        ConfigError: if an argument is out of range.
        FileFormatError: if the file is not a checkpoint.

    Source: names of tensors: the official code of Guo et al., ICCV 2023.

    Example:
        >>> import spikefold as sf
        >>> from spikefold.adopt import to_official
        >>> network = sf.models.resnet20(width=0.0625)
        >>> again = sf.from_official(to_official(network), "resnet20", steps=4)
        >>> again.arguments.width, again.arguments.steps
        (0.0625, 4)
    """
    if model not in OFFICIAL_MODELS:
        raise ConfigError(
            f"from_official: unknown model {model!r}: one of {', '.join(OFFICIAL_MODELS)}"
        )
    if isinstance(checkpoint, str | Path):
        found = read_checkpoint(checkpoint)
    else:
        found = tensors(checkpoint, "from_official")
    found = _without_wrappers(found)
    dtype = _dtype(found)
    network = _built(found, model, steps, standardize is not None, neuron)
    state = _matched(network, found)
    if standardize is not None:
        state |= _standardization(standardize, network.arguments.in_channels, dtype)
    network.load_state_dict(state, assign=True)
    return network.eval()


def to_official(network: Network) -> dict[str, Tensor]:
    """The tensors of a network under the names of the official code.

    Arguments:
        network: one of `OFFICIAL_MODELS`, as trained, with the norms of the official code; what
            its input does (standardize) is done outside of the network there.

    Raises:
        AdoptError: if it is another; says what the official code has no counterpart of.
    """
    _require_official(network)
    state = network.state_dict()
    return {there: state[here].clone() for here, there in official_names(network).items()}


def _require_official(network: Network) -> None:
    arguments, names = network.arguments, official_names(network)
    others = [key for key in network.state_dict() if key not in names and key[:6] != "input."]
    if network.name not in OFFICIAL_MODELS:
        what = f"model {network.name!r}: only {', '.join(OFFICIAL_MODELS)} are"
    elif network.transforms:
        what = f"a network after {' and '.join(network.transforms)}: take it as trained"
    elif arguments.current_norm != "bn" or arguments.norm == "mpbn-steps":
        what = f"norms {arguments.current_norm!r} and {arguments.norm!r} in one network"
    elif others:
        what = f"tensor {others[0]!r}"
    else:
        return
    raise AdoptError(f"to_official: not in the official code: {what}")


def official_names(network: Network) -> dict[str, str]:
    """The official code's name of each tensor of a network, by its name here."""
    prefixes = dict(_prefixes(network))
    names = {}
    for key in network.state_dict():
        here = key.rpartition(".")[0]
        if here in prefixes:
            names[key] = prefixes[here] + key.removeprefix(here)
    return names


def _prefixes(network: Network) -> Iterator[tuple[str, str]]:
    """Paths of modules here and there, in the order in which they compute."""
    stage, block, count = 1, 0, 0
    for index, part in enumerate(network.features):
        here = f"features.{index}"
        if isinstance(part, BasicBlock):
            if not isinstance(part.shortcut, nn.Identity):  # where channels and size change
                stage, block = stage + 1, 0
            yield from _block(here, f"layer{stage}.{block}", part)
            block += 1
        elif isinstance(part, SpikingLayer):
            yield from _unit(here, _outside_blocks(network.name, count))
            count += 3
        else:
            count += 1  # a pool
    yield "classifier", f"{'classifier' if network.name == 'vgg16' else 'fc'}.conv"


def _outside_blocks(model: str, count: int) -> tuple[str, str, str]:
    """Convolution, batch norm and neurons of a unit behind so many layers."""
    row = {"vgg16": "features", "resnet20": "conv1"}.get(model)
    if row is None:
        return "conv1", "bn1", "relu"
    return f"{row}.{count}", f"{row}.{count + 1}", f"{row}.{count + 2}"


def _unit(here: str, there: tuple[str, str, str]) -> Iterator[tuple[str, str]]:
    connection, norm, neurons = there
    yield f"{here}.connection", f"{connection}.pool"
    yield f"{here}.norm", f"{norm}.bn"
    yield f"{here}.lif.norm", f"{neurons}.bn"


def _block(here: str, there: str, block: BasicBlock) -> Iterator[tuple[str, str]]:
    first = (f"{there}.conv1", f"{there}.bn1", f"{there}.relu1")
    yield from _unit(f"{here}.first", first)
    second = (f"{there}.conv2", f"{there}.bn2", f"{there}.output_act")
    yield from _unit(f"{here}.second", second)
    for name, part in block.shortcut.named_children():
        wrapped = "pool" if isinstance(part, nn.Conv2d) else "bn"
        yield f"{here}.shortcut.{name}", f"{there}.downsample.{name}.{wrapped}"


def _without_wrappers(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefixes of data parallel and of the model's wrapper."""
    for prefix in ("module.", "model."):
        if all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _dtype(found: dict[str, Tensor]) -> torch.dtype:
    """Of all tensors that are not counts: float32 or float64."""
    dtype = None
    for name, value in found.items():
        if name.endswith(".num_batches_tracked"):
            continue
        if value.dtype not in (torch.float32, torch.float64):
            raise AdoptError(f"tensor {name!r} is {value.dtype}, not float32 or float64")
        if value.dtype != (dtype or value.dtype):
            raise AdoptError(f"tensor {name!r} is {value.dtype}, others are {dtype}")
        dtype = value.dtype
    return dtype or torch.float32


def _built(
    found: dict[str, Tensor],
    model: str,
    steps: int | None,
    standardize: bool,
    neuron: Neuron | None,
) -> Network:
    """The network of which these are the tensors, without values."""
    with torch.device("meta"):  # shapes only: no random numbers, no memory
        usual = MODELS[model]()
    names = official_names(usual)

    def shape(key: str, dimensions: int) -> torch.Size:
        if names[key] not in found:
            raise AdoptError(f"tensor {names[key]!r} is missing{_hint(found, model)}")
        given = found[names[key]].shape
        if len(given) != dimensions or 0 in given:
            raise AdoptError(
                f"tensor {names[key]!r} has shape {list(given)}, not {dimensions} dimensions"
            )
        return given

    rows, in_channels, *_ = shape("features.0.connection.weight", 4)
    classes, _ = shape("classifier.weight", 2)
    stem = next(module for module in usual.modules() if isinstance(module, nn.Conv2d))
    options: dict[str, Any] = {
        "in_channels": in_channels,
        "width": rows / stem.out_channels,
        "steps": steps,
        "neuron": neuron or Neuron(),
        "standardize": standardize,
    }
    norm: Norm = "none"
    gain = names["features.0.lif.norm.weight"]
    if any(name in found for key, name in names.items() if ".lif.norm." in key):
        norm, size = _membrane_norm(gain, found, rows)
        if size is not None:
            options["image_size"] = size * stem.stride[0]
    with torch.device("meta"):
        return MODELS[model](classes, norm, **options)


def _membrane_norm(gain: str, found: dict[str, Tensor], channels: int) -> tuple[Norm, int | None]:
    """Channel-wise; or element-wise, and height and width of the map."""
    if gain not in found:
        raise AdoptError(f"tensor {gain!r} is missing")
    values = found[gain].numel()
    if values == channels:
        return "mpbn", None
    size = math.isqrt(values // channels)
    if values != channels * size * size:
        raise AdoptError(
            f"tensor {gain!r} has {values} values for {channels} channels: neither one a channel "
            "nor one for each element of a square map"
        )
    return "mpbn-element", size


def _matched(network: Network, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the tensors by their names here; all of them, and each of its shape."""
    names = official_names(network)
    state = {}
    for key, wanted in network.state_dict().items():
        name = names.get(key)
        if name is None:  # the constants of the input
            continue
        if name not in found:
            raise AdoptError(f"tensor {name!r} is missing{_hint(found, network.name)}")
        value = found[name].detach()
        if network.arguments.norm == "mpbn-element" and value.numel() == wanted.numel():
            value = value.reshape(wanted.shape)  # MPBN of flattened elements
        if value.shape != wanted.shape:
            raise AdoptError(
                f"tensor {name!r} has shape {list(value.shape)}, {network.name} needs "
                f"{list(wanted.shape)}"
            )
        state[key] = value.cpu().clone()
    extra = sorted(found.keys() - names.values())
    if extra:
        raise AdoptError(
            f"{len(extra)} tensors are left over, {extra[0]!r} the first of them"
            f"{_hint(found, network.name)}"
        )
    return state


def _hint(found: dict[str, Tensor], model: str) -> str:
    """Which model's names these are, if another's."""
    for other in OFFICIAL_MODELS:
        with torch.device("meta"):
            names = official_names(MODELS[other]())
        if other != model and set(names.values()) == found.keys():
            return f" from {model}: these are the tensors of {other}"
    return f" from {model}"


def _standardization(
    standardize: OfficialInput | tuple[Channels, Channels], channels: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    if isinstance(standardize, str):
        if standardize not in STANDARDIZATIONS:
            raise ConfigError(
                f"from_official: unknown standardization {standardize!r}: one of "
                f"{', '.join(STANDARDIZATIONS)}, or mean and deviation of each channel"
            )
        standardize = STANDARDIZATIONS[standardize]
    try:
        mean, deviation = (torch.tensor(values, dtype=dtype) for values in standardize)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"from_official: standardize must be mean and deviation of each channel: {error}"
        ) from error
    if mean.shape != (channels,) or deviation.shape != (channels,):
        raise ConfigError(
            f"from_official: standardize has {mean.numel()} means and {deviation.numel()} "
            f"deviations, the network {channels} input channels"
        )
    if not (bool(mean.isfinite().all()) and bool((deviation > 0).all())):
        raise ConfigError("from_official: means must be finite and deviations positive")
    return {"input.0.mean": mean, "input.0.deviation": deviation}
