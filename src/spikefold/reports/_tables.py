"""What a person wants to know of a run, in rows."""

from typing import Any

Row = tuple[str, str]


def run_table(summary: dict[str, Any]) -> list[Row]:
    """Rows of label and value from a run's `summary.json`."""
    test, fold, fuse = summary["test"], summary["fold"], summary["fuse"]
    timing = summary["timing"]
    rows = [
        ("samples: training / validation / test", _samples(summary["samples"])),
        ("validation accuracy, which chose the epoch", _percent(summary["validation"])),
        ("test accuracy with MPBN", _percent(test["mpbn"])),
        ("test accuracy folded", _percent(test["folded"])),
        ("test accuracy folded and conv-BN fused", _percent(test["fused"])),
        ("spike decisions compared, MPBN and folded", f"{fold['spikes']:,}"),
        ("... that differ", f"{fold['mismatches']:,}"),
        ("... largest difference of a logit", f"{fold['max_output_difference']:g}"),
        (
            "fused: decisions that differ",
            f"{fuse['mismatches']:,} ({fuse['mismatch_rate']:.2g} of all)",
        ),
    ]
    rows += [
        (f"firing rate of {name}", f"{rate:.3f} spikes per neuron and step")
        for name, rate in summary["firing_rates"].items()
    ]
    rows += [
        (
            f"CPU time per image, {name}",
            f"{1e6 * record['cpu_seconds']:.0f} µs  ({record['cpu_ratio']:.2f} of without MPBN)",
        )
        for name, record in timing["networks"].items()
    ]
    hardware = summary["hardware"]
    rows.append(
        (
            "measured on",
            f"{hardware['processor']}, torch {hardware['torch']}; times: "
            f"{timing['threads']} thread, batch {timing['batch']}, minimum of "
            f"{timing['rounds']} turns",
        )
    )
    return rows


def _samples(samples: dict[str, int]) -> str:
    return f"{samples['train']:,} / {samples['validation']:,} / {samples['test']:,}"


def _percent(record: dict[str, Any]) -> str:
    return f"{record['accuracy']:.2%}  ({record['correct']} of {record['samples']})"
