"""NIR graphs as networks, against a trace by hand and NIR's equations in float64."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import spikefold as sf
from spikefold.adopt import _nir_file
from spikefold.errors import AdoptError, ConfigError, FileFormatError, SpikefoldError
from spikefold.nn import Call, observing
from tests.adopt.nir_equations import simulate

nir = pytest.importorskip("nir", reason="nir is not here: pip install 'spikefold[export]'")
h5py = pytest.importorskip("h5py")

DT = 1e-4


def lif(shape: tuple[int, ...], decay: Any = 0.25, threshold: Any = 0.5, r: Any = None) -> Any:
    """A LIF with this decay, whose input counts as it is unless r says otherwise."""
    tau = np.broadcast_to(DT / (1 - np.asarray(decay, np.float64)), shape)
    r = tau / DT if r is None else np.broadcast_to(np.asarray(r, np.float64), shape)
    return nir.LIF(tau, r, np.zeros(shape), np.broadcast_to(np.float64(threshold), shape))


def spiking(shape: tuple[int, ...], threshold: Any = 0.5, r: Any = 1 / DT) -> Any:
    return nir.IF(np.broadcast_to(r, shape), np.broadcast_to(np.float64(threshold), shape))


def dyadic(*shape: int, by: int = 8) -> Tensor:
    """Numbers that add up without rounding, in whatever order."""
    return torch.randint(-by, by + 1, shape) / by


def conv(weight: Tensor, size: int | None = None, **options: Any) -> Any:
    options = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1} | options
    shape = None if size is None else (size, size)  # None: nir does not look at the others
    return nir.Conv2d(shape, weight.numpy(), bias=dyadic(len(weight)).numpy(), **options)


def row(*nodes: Any, shape: tuple[int, ...]) -> Any:
    names = {"input": nir.Input(np.array(shape))}
    names |= {f"n{i}": node for i, node in enumerate(nodes)}
    names["output"] = nir.Output(np.array([1]))
    order = list(names)
    return nir.NIRGraph(names, list(itertools.pairwise(order)), type_check=False)


# u = 0.5 v + x; a potential that meets the threshold fires only where it is said to
@pytest.mark.parametrize(
    ("node", "source", "spikes"),
    [
        # u = 0.5, 1.0, 1.25 fires, 0.75, 1.125 fires
        (lif((1,), 0.5, 1.0), None, [0, 0, 1, 0, 1]),
        # u = 0.5, 1.0 fires, 0.75, 1.125 fires, 0.75
        (lif((1,), 0.5, 1.0), "spikingjelly", [0, 1, 0, 1, 0]),
        # half the current: u = 0.25, 0.5, 0.625, 0.6875, 0.71875
        (lif((1,), 0.5, 0.65, r=1.0), None, [0, 0, 0, 1, 0]),
        # one for all neurons
        (lif((), 0.5, 0.65, r=1.0), None, [0, 0, 0, 1, 0]),
        # nothing leaks: u = 0.5, 1.25 fires, 0.75, 1.5 fires, 0.75
        (spiking((1,), 1.0), None, [0, 1, 0, 1, 0]),
        (spiking((1,), 1.0, r=1.0), "snntorch", [0, 1, 0, 1, 0]),
        # turned around: it fires below -0.7
        (lif((1,), 0.5, 0.7, r=-2.0), None, [0, 0, 0, 0, 0]),
        (lif((1,), 0.5, -0.7, r=-2.0), None, [1, 0, 0, 0, 0]),
        (lif((1,), 0.5, np.inf), None, [0, 0, 0, 0, 0]),
        (lif((1,), 0.5, -np.inf), None, [1, 1, 1, 1, 1]),
    ],
)
def test_by_hand(node: Any, source: Any, spikes: list[int]) -> None:
    x = torch.tensor([0.5, 0.75, 0.75, 0.75, 0.75]).view(5, 1, 1)
    made = sf.from_nir(row(node, shape=(1,)), source=source)
    assert made(x).flatten().tolist() == spikes


def graph_of_all_kinds(decay: Any, threshold: Any, r: Any) -> Any:
    """Two branches meet, one of them a graph inside the graph; every kind of node is there."""
    shape = (4, 8, 8)
    inner = row(conv(dyadic(4, 2, 1, 1), 8, groups=2), nir.Scale(dyadic(*shape).numpy()),
                shape=shape)  # fmt: skip
    nodes = {
        "input": nir.Input(np.array([4, 8, 8])),
        "first": conv(dyadic(4, 4, 3, 3), 8, padding=1),
        "inner.graph": inner,
        "lif": lif(shape, decay, threshold, r),
        "pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "if": spiking((4, 4, 4), 1.25, 2 / DT),
        "mean": nir.AvgPool2d(2, 2, 0),
        "flat": nir.Flatten(np.array([4, 2, 2]), 0, -1),
        "linear": nir.Linear(dyadic(6, 16).numpy()),
        "affine": nir.Affine(dyadic(6, 16).numpy(), dyadic(6).numpy()),
        "last": lif((6,), 0.75, 0.375),
        "output": nir.Output(np.array([6])),
    }
    edges = [("input", "first"), ("input", "inner.graph"), ("first", "lif"),
             ("inner.graph", "lif"), ("lif", "pool"), ("pool", "if"), ("if", "mean"),
             ("mean", "flat"), ("flat", "linear"), ("flat", "affine"), ("linear", "last"),
             ("affine", "last"), ("last", "output")]  # fmt: skip
    return nir.NIRGraph(nodes, edges, type_check=False)


def without_inner(graph: Any) -> Any:
    """The same graph in which the nodes of the inner one stand themselves."""
    inner = graph.nodes["inner.graph"]
    nodes = {k: v for k, v in graph.nodes.items() if k != "inner.graph"}
    nodes |= {"n0": inner.nodes["n0"], "n1": inner.nodes["n1"]}
    swap = {("input", "inner.graph"): ("input", "n0"), ("inner.graph", "lif"): ("n1", "lif")}
    edges = [swap.get(edge, edge) for edge in graph.edges] + [("n0", "n1")]
    return nir.NIRGraph(nodes, edges, type_check=False)


# decays and factors that are powers of two or exact in float32: every potential is exact, ties too
PER_NEURON = st.sampled_from(["one", "channel", "neuron"])


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    decays=st.sampled_from(["one", "channel"]),
    thresholds=PER_NEURON,
    factors=PER_NEURON,
    source=st.sampled_from([None, "spikingjelly"]),
)
def test_spikes_are_those_of_the_equations(
    seed: int, decays: str, thresholds: str, factors: str, source: Any
) -> None:
    torch.manual_seed(seed)
    shape = {"one": (1, 1, 1), "channel": (4, 1, 1), "neuron": (4, 8, 8)}

    def drawn(values: list[float], kind: str) -> Any:
        return np.array(values)[torch.randint(len(values), shape[kind]).numpy()]

    decay = drawn([0.25, 0.5, 0.75], decays)
    factor = drawn([1.0, 2.0, -0.5], factors)
    threshold = drawn([0.5, 1.25, -0.25, 0.0, np.inf], thresholds)
    graph = graph_of_all_kinds(decay, threshold, factor / (1 - decay))
    x = dyadic(4, 3, 4, 8, 8)
    expected = simulate(without_inner(graph), x, at_threshold=source is not None)
    made = sf.from_nir(graph, source=source)
    seen: dict[str, Tensor] = {}

    def see(name: str, call: Call) -> None:
        seen[name] = call.fired.spikes

    with observing(made, see):
        result = made(x)
    assert torch.equal(result.double(), expected["output"])
    for name in ("lif", "if", "last"):
        assert torch.equal(seen[f"parts.{name}"].double(), expected[name]), name


def test_a_stream_and_a_file_give_the_same(tmp_path: Path) -> None:
    graph = without_inner(graph_of_all_kinds(0.25, 0.5, None))
    made, x = sf.from_nir(graph), dyadic(5, 3, 4, 8, 8)
    expected, state, steps = made(x), None, []
    for frame in x:
        y, state = made.step(frame, state)
        steps.append(y)
    assert torch.equal(torch.stack(steps), expected)
    assert 0.02 < expected.mean() < 0.98
    nir.write(tmp_path / "net.nir", graph)
    assert torch.equal(sf.from_nir(tmp_path / "net.nir")(x), expected)
    assert torch.equal(sf.from_nir(str(tmp_path / "net.nir"))(x), expected)
    sf.save(made, tmp_path / "net.safetensors")
    assert torch.equal(sf.load(tmp_path / "net.safetensors", into=sf.from_nir(graph))(x), expected)
    assert torch.equal(sf.prepare(made, x)(x), expected)
    made.train()(x.requires_grad_()).sum().backward()
    assert x.grad.abs().sum() > 0


class Bad:
    """Something else than a graph, or nodes of kinds that are not known."""


KERNEL = dyadic(1, 2, 3, 3)
BIG = np.ones((2, 2), np.float32)
V1 = np.zeros(1)


def broken(**fields: Any) -> Any:
    return row(dataclasses.replace(lif((1,)), **{k: np.array([v]) for k, v in fields.items()}),
               shape=(1,))  # fmt: skip


def edges(*pairs: tuple[str, str], **nodes: Any) -> Any:
    nodes = {"i": nir.Input(np.array([2])), "o": nir.Output(np.array([2]))} | nodes
    return nir.NIRGraph(nodes, list(pairs), type_check=False)


def line(node: Any, shape: tuple[int, ...] = (2,)) -> Any:
    return row(node, shape=shape)


TWO = {"a": nir.Linear(BIG), "b": nir.Linear(BIG)}


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (Bad(), "expected a nir.NIRGraph or the path of a .nir file, got a Bad"),
        (broken(v_leak=0.1), "node 'n0' (LIF): v_leak is not 0"),
        (broken(v_reset=-1.0), "node 'n0' (LIF): v_reset is not 0"),
        (broken(v_threshold=np.nan), "node 'n0' (LIF): v_threshold is NaN"),
        (broken(tau=0.5e-4), "node 'n0' (LIF): tau is less than dt = 0.0001"),
        (broken(tau=0.0), "tau is less than dt"),
        (broken(tau=np.nan), "tau is less than dt"),
        (broken(r=0.0), "r must be finite and not 0"),
        (line(lif((3,))), "node 'n0' (LIF): v_leak is [3], its input [2]"),
        (line(lif((2, 2, 2), np.arange(8).reshape(2, 2, 2) / 9), (2, 2, 2)), "tau differs from"),
        (line(nir.CubaLIF(*[np.ones(2)] * 5)), "node 'n0' (CubaLIF): has no counterpart here: kn"),
        (line(nir.Threshold(np.ones(2))), "(Threshold): has no counterpart here: known are LIF"),
        (line(nir.Delay(np.ones(2))), "node 'n0' (Delay): has no counterpart"),
        (line(nir.Linear(BIG), (3,)), "(Linear): does not take an input [3]"),
        (line(nir.Linear(BIG), (2, 2)), "a weight [2, 2] for [2, 2]: only [out, in] for [in]"),
        (line(nir.Affine(BIG, np.ones(3))), "node 'n0' (Affine): does not take an input [2]"),
        (line(nir.Affine(BIG, np.array([1, np.inf]))), "bias is NaN, infinite or beyond float32"),
        (line(nir.Linear(BIG * np.nan)), "node 'n0' (Linear): weight is NaN"),
        (line(nir.Linear(np.array([["a"]]))), "node 'n0' (Linear): weight is not made of numbers"),
        (line(nir.Scale(np.ones(3))), "node 'n0' (Scale): scale is [3], its input [2]"),
        (line(conv(KERNEL), (3, 8, 8)), "(Conv2d): does not take an input [3, 8, 8]"),
        (line(conv(KERNEL, stride=(1, 2, 3)), (2, 8, 8)), "stride must be 2 whole n"),
        (line(conv(KERNEL, padding=0.5), (2, 8, 8)), "padding must be 2 whole numb"),
        (line(conv(KERNEL, padding="same", stride=(2, 2)), (2, 8, 8)), "'n0' (Conv2d"),
        (line(nir.SumPool2d(9, 1, 0), (2, 8, 8)), "(SumPool2d): does not take an input [2, 8, 8]"),
        (line(nir.Flatten(np.array([2]), 4, -1)), "(Flatten): does not take an input [2]"),
        (line(nir.Linear(BIG), (0,)), "node 'input' (Input): its shape is [0]"),
        (edges(("i", "a"), ("a", "o"), ("a", "b"), ("b", "a"), **TWO), "is a cycle: recurrent"),
        (edges(("i", "a"), ("i", "a"), ("a", "o"), a=TWO["a"]), "edge 'i' to 'a' is there twice"),
        (edges(("i", "x"), ("i", "o")), "edge 'i' to 'x': there is no such node"),
        (edges(("i", "o"), ("a", "o"), a=TWO["a"]), "node 'a' (Linear): nothing leads to it"),
        (edges(("i", "o"), ("i", "a"), a=TWO["a"]), "node 'a' (Linear): it leads nowhere"),
        (edges(("i", "a"), ("i", "o"), ("a", "o"), a=nir.Linear(BIG[:1])),
         "node 'o' (Output): [2] and [1] meet, and cannot be added"),
        (edges(("i", "o"), ("i", "p"), p=nir.Output(np.array([2]))), "2 nodes of kind Output ['o'"),
        (edges(("i", "o"), ("j", "o"), j=nir.Input(np.array([2]))), "2 nodes of kind Input ['i'"),
        (edges(("i", "o"), g=edges(("i", "o"))), "node 'g.i' (Input): nothing leads to it"),
        (edges(("i", "o"), ("o", "i")), "is a cycle"),
        (edges(("i", "g"), ("g", "o"), g=edges(("i", "o"), o=nir.I(np.ones(2)))),
         "g has 0 nodes of kind Output"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_refused_by_name(graph: Any, message: str) -> None:
    with pytest.raises(AdoptError) as raised:
        sf.from_nir(graph)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("as_user")
def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="source must be one of nir, norse, snntorch"):
        sf.from_nir(line(lif((2,))), source="sinabs")  # type: ignore[arg-type]
    with pytest.raises(FileFormatError, match="no such file"):
        sf.from_nir(tmp_path / "absent.nir")


def test_names_of_a_file_are_no_code() -> None:
    """They become attributes of modules, and text in what torch.fx writes."""
    names = ['"); raise SystemExit(1) #', "forward", "parts", "a.b", "", "for", "0", "ä", "keys"]
    nodes = {name: nir.Linear(2 * np.eye(2, dtype=np.float32)) for name in names}
    path = ["i", *names, "o"]
    made = sf.from_nir(edges(*itertools.pairwise(path), **nodes))
    assert made(torch.ones(1, 1, 2)).flatten().tolist() == [512, 512]
    assert all(name.isidentifier() or name.isdigit() for name in made.parts)
    assert str(sf.graph(made)).count("connection") >= len(names)


def damaged(content: bytes, seed: int) -> bytes:
    """Cut off, or with some bytes changed."""
    random = np.random.default_rng(seed)
    if seed % 3 == 0:
        return content[: random.integers(len(content))]
    changed = bytearray(content)
    for at in random.integers(len(content), size=random.integers(1, 20)):
        changed[at] = random.integers(256)
    return bytes(changed)


@pytest.mark.usefixtures("as_user")
def test_damaged_files(tmp_path: Path) -> None:
    nir.write(tmp_path / "net.nir", without_inner(graph_of_all_kinds(0.25, 0.5, None)))
    content, path, told = (tmp_path / "net.nir").read_bytes(), tmp_path / "damaged.nir", []
    for seed in range(300):
        path.write_bytes(damaged(content, seed))
        try:
            sf.from_nir(path)
        except SpikefoldError as error:
            told.append(str(error))
    assert len(told) > 100
    assert not any("\n" in message for message in told)


@pytest.mark.usefixtures("as_user")
def test_links_and_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bad.nir"
    for link in (h5py.ExternalLink("/etc/passwd", "/"), h5py.SoftLink("/node")):
        with h5py.File(path, "w") as file:
            file["node/type"] = b"NIRGraph"
            file["node/nodes"] = link
        with pytest.raises(FileFormatError, match="'nodes' is a link"):
            sf.from_nir(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("node/weight", (2**40,), "f4", compression="gzip")
    with pytest.raises(FileFormatError, match="more than 4,294,967,296 bytes"):
        sf.from_nir(path)
    graph = line(lif((2,)))
    graph.metadata = {"spikefold": np.ones(2)}
    with pytest.raises(AdoptError, match="the metadata 'spikefold' of the graph are damaged"):
        sf.from_nir(graph)
    path.write_bytes(b"PK" * 100)
    with pytest.raises(FileFormatError, match="not a NIR file, or damaged"):
        sf.from_nir(path)
    nir.write(path, line(lif((2,))))
    monkeypatch.setattr(_nir_file, "importlib", Bad())
    monkeypatch.setattr(Bad, "import_module", missing, raising=False)
    with pytest.raises(AdoptError, match=r"needs nir: pip install 'spikefold\[export\]'"):
        sf.from_nir(path)


def missing(self: Any, name: str) -> Any:
    raise ModuleNotFoundError(name)
