"""Networks into files and back."""

import itertools
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, overload

import torch
from torch import Tensor, nn

from spikefold.data import InputSpec
from spikefold.errors import ConfigError, FileFormatError, SpikefoldError
from spikefold.folding import made_again, transforms_in
from spikefold.models import Arguments, Network, NIRModel, build, of_parts, parts_of
from spikefold.nn import FoldedLIF, copied, twin, unwrapped
from spikefold.registry import registered_only
from spikefold.saving._file import Header, read_file, write_file
from spikefold.saving._values import problem

ModelT = TypeVar("ModelT", bound=nn.Module)


@dataclass
class Stored(Generic[ModelT]):
    """A network read from a file, and what else the file holds.

    Attributes:
        network: rebuilt, with the stored weights, in evaluation mode.
        extra: plain data that was stored with it.
        tensors: tensors that were stored with it (an optimizer's state, say).
    """

    network: ModelT
    extra: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)


def save(
    network: nn.Module,
    path: str | Path,
    *,
    extra: dict[str, Any] | None = None,
    tensors: dict[str, Tensor] | None = None,
) -> None:
    """Write a network into one safetensors file; the header says how to rebuild it.

    Of a model of `spikefold.models` all is stored that rebuilds it; of any other module the tensors
    and what was done to it (fold, fusion): `load(path, into=...)` reads them. An
    attribute `input_spec` of either, an `InputSpec`, is kept. What wraps a network (torch.compile,
    data parallel) is left out. The file is written under a temporary name and renamed, so that it
    is never half there.

    Arguments:
        network: any, trained, folded or fused.
        path: file to write, usually `*.safetensors`.
        extra: plain data to keep with it.
        tensors: further tensors to keep with it.

    Raises:
        ConfigError: if it is a model of `spikefold.models` that was changed so that it could not be
            rebuilt, its `input_spec` is no such thing, or a value is NaN, infinite or of a dtype
            that cannot be read back; names the first.
        FileFormatError: if the file cannot be written.
    """
    network = unwrapped(network)
    state = _state(network)
    spec = getattr(network, "input_spec", None)
    if not (spec is None or isinstance(spec, InputSpec)):
        raise ConfigError(f"save: input_spec must be an sf.InputSpec, got a {type(spec).__name__}")
    header = Header(
        type(network).__name__,
        transforms_in(network),
        extra or {},
        input=spec,
    )
    if isinstance(network, Network):
        parts = parts_of(network.graph) if isinstance(network, NIRModel) else None
        header = replace(header, model=network.name, arguments=network.arguments, parts=parts)
        _require_rebuilt(network, _rebuild(header, state))
    if wrong := problem(network, state):
        raise ConfigError(f"save: {wrong}: it could not be read back")
    stored = {f"network.{key}": value for key, value in state.items()}
    write_file(Path(path), header, stored | {f"extra.{k}": v for k, v in (tensors or {}).items()})


@overload
def load(path: str | Path) -> Network: ...
@overload
def load(path: str | Path, into: ModelT) -> ModelT: ...
def load(path: str | Path, into: ModelT | None = None) -> Network | ModelT:
    """The network of a file that `save` wrote, in evaluation mode, on the CPU.

    Arguments:
        path: the file.
        into: for a module that is not from `spikefold.models`: one of the structure it had
            when it was built (`MyNet()`); not changed.

    Returns:
        the model; or a new module of the class of `into`, to which was done what the file says,
        with the stored weights and their dtypes.

    Raises:
        FileFormatError: if the file is absent, cut off, foreign, damaged, of a newer format, holds
            a module that needs `into`, or its tensors do not fit.

    Example:
        >>> import tempfile, torch, spikefold as sf
        >>> network = sf.fold(sf.models.small(in_channels=1, steps=4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sf.save(network, f"{folder}/folded.safetensors")
        ...     again = sf.load(f"{folder}/folded.safetensors")
        >>> images = torch.rand(2, 1, 8, 8)
        >>> torch.equal(network(images), again(images))
        True
    """
    return read(path).network if into is None else read(path, into).network


@overload
def read(path: str | Path) -> Stored[Network]: ...
@overload
def read(path: str | Path, into: ModelT) -> Stored[ModelT]: ...
def read(path: str | Path, into: ModelT | None = None) -> Stored[Network] | Stored[ModelT]:
    """All that is in a file that `save` wrote.

    Arguments:
        path, into: as for `load`.

    Raises:
        FileFormatError: as `load` does.
    """
    path = Path(path)
    header, tensors = read_file(path)
    state, others = _part(tensors, "network."), _part(tensors, "extra.")
    if into is None and header.model is None:
        raise FileFormatError(
            f"{path}: holds a {header.module}, which is not a model of spikefold.models: "
            "load(path, into=...) with a new one"
        )
    try:
        network = _rebuild(header, state, into)
    except (SpikefoldError, AttributeError, KeyError, RuntimeError) as error:
        what = "the header does not describe a network" if into is None else _unlike(header, into)
        raise FileFormatError(f"{path}: {what}: {error}") from error
    what = f"model {header.model}" if into is None else type(network).__name__
    if header.format == 1:
        _add_polarity(network, state)
    if wrong := problem(network, state):
        raise FileFormatError(f"{path}: {wrong}: damaged, or not written by spikefold")
    _fill(path, what, network, state)
    if header.input is not None:
        described: Any = network
        described.input_spec = header.input
    return cast(Any, Stored(network.eval(), header.extra, others))


def _unlike(header: Header, into: nn.Module) -> str:
    return (
        f"{type(into).__name__} is not what the {header.module} was when it was built (`into` is "
        "such a one, or what `sf.convert` gave)"
    )


def _rebuild(header: Header, state: dict[str, Tensor], into: nn.Module | None = None) -> nn.Module:
    """The network without its values; a model on the meta device: no random numbers, no memory."""
    if into is not None:
        network = copied(unwrapped(into))
    elif header.parts is not None:
        network = of_parts(header.parts, header.arguments or Arguments())
    else:
        with torch.device("meta"), registered_only():
            network = build(header.model or "", header.arguments or Arguments())
    if any(v.dtype == torch.float64 for key, v in state.items() if key.endswith("theta")):
        network = network.double()  # thresholds keep the dtype they were found in
    return made_again(network, header.transforms)


def _fill(path: Path, what: str, network: nn.Module, state: dict[str, Tensor]) -> None:
    """Put the stored tensors in, as they are; what was one tensor stays one."""
    ties = _ties(network)
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        problem = " ".join(str(error).split("\n\t")[1:2]) or str(error)
        raise FileFormatError(
            f"{path}: the tensors do not fit {what}: {problem.strip()}"
        ) from error
    for first, *others in ties:
        owner, _, key = first.rpartition(".")
        tensor = getattr(network.get_submodule(owner), key)
        for other in others:
            owner, _, key = other.rpartition(".")
            setattr(network.get_submodule(owner), key, tensor)


def _add_polarity(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Format 1 left out what is +1 everywhere."""
    for name, module in network.named_modules():
        if isinstance(module, FoldedLIF):
            ones = torch.ones(module.theta.shape, dtype=module.theta.dtype)
            state.setdefault(f"{name}.polarity".lstrip("."), ones)


def _require_rebuilt(network: Network, rebuilt: nn.Module) -> None:
    """Refuse a model that is not what would be read back."""
    for what, ours, theirs in (
        ("is", _described(network), _described(rebuilt)),
        ("holds", _shapes(network), _shapes(rebuilt)),
        ("shares", _ties(network), _ties(rebuilt)),
    ):
        for mine, other in itertools.zip_longest(ours, theirs):
            if mine != other:
                raise ConfigError(
                    f"save: the network {what} {mine}, where model '{network.name}' {what} "
                    f"{other}: it could not be rebuilt; make it a part of a module of your own, "
                    "and load that with into="
                )


def _described(network: nn.Module) -> list[str]:
    """Its modules and their settings, one a line, as they run in evaluation."""
    lines = repr(twin(network)).splitlines()
    return [re.sub(r"Sync\w*BatchNorm\w*", "BatchNorm2d", line.strip()) for line in lines]


def _shapes(network: nn.Module) -> list[str]:
    return [f"{name} {list(value.shape)}" for name, value in _state(network).items()]


def _state(network: nn.Module) -> dict[str, Tensor]:
    """Its state dict, without the prefixes that torch.compile adds."""
    return {key.replace("_orig_mod.", ""): value for key, value in network.state_dict().items()}


def _ties(network: nn.Module) -> list[list[str]]:
    """Names of tensors that a network has under several names."""
    groups: dict[int, list[str]] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        groups.setdefault(id(tensor), []).append(name.replace("_orig_mod.", ""))
    return [names for names in groups.values() if len(names) > 1]


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
