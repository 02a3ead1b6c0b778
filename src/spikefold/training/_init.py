"""Training that starts from trained weights."""

from pathlib import Path

from torch import Tensor

from spikefold.errors import ConfigError
from spikefold.models import Arguments, Network
from spikefold.plain import to_plain
from spikefold.saving import load
from spikefold.training._resume import differences

# what may differ where weights are taken over: it has no tensor, and only training notices it
FREE = ("num_classes", "steps", "image_size", "surrogate", "detach_reset")


def start_from(path: Path, network: Network) -> str:
    """Take over the weights and statistics of a trained network; changes `network` in place.

    For another number of classes the readout keeps its new weights.

    Arguments:
        path: of a network file, as trained: not folded, not fused.
        network: of the same model, on its device.

    Returns:
        in words, what was taken over.

    Raises:
        FileFormatError: if the file is not a network.
        ConfigError: if it does not fit; says in what.
    """
    trained = load(path)
    if trained.transforms:
        raise ConfigError(
            f"init: {path} was changed after training ({', '.join(trained.transforms)}): take the "
            "network as it was trained (best.safetensors)"
        )
    if trained.name != network.name:
        raise ConfigError(f"init: {path} is a {trained.name}, not a {network.name}")
    changed = differences(_fixed(trained.arguments), _fixed(network.arguments))
    if changed:
        raise ConfigError(f"init: {path} does not fit: {', '.join(changed)}")
    state = trained.state_dict()
    there, here = trained.arguments.num_classes, network.arguments.num_classes
    if there != here:
        state |= {f"classifier.{k}": v for k, v in network.classifier.state_dict().items()}
    _require_shapes(path, state, network.state_dict())
    network.load_state_dict(state)
    if there != here:
        return f"weights of {path}, but a new readout: {here} classes where there were {there}"
    return f"weights of {path}, with its readout of {there} classes"


def _fixed(arguments: Arguments) -> dict[str, object]:
    """The arguments, at one level, that have to be the same."""
    plain = to_plain(arguments)
    plain |= plain.pop("neuron")
    return {name: value for name, value in plain.items() if name not in FREE}


def _require_shapes(path: Path, there: dict[str, Tensor], here: dict[str, Tensor]) -> None:
    """Refuse tensors of other names or shapes."""
    changed = differences(
        {name: list(tensor.shape) for name, tensor in there.items()},
        {name: list(tensor.shape) for name, tensor in here.items()},
    )
    if changed:
        raise ConfigError(f"init: {path} does not fit: {changed[0]}")
