"""Record of the log as a line of text."""

from collections.abc import Mapping
from typing import Any

from mmrnn.training.trackers.console import rounded


def status_line(record: Mapping[str, Any], steps: int) -> str:
    """Return the line of a record; what the record lacks is left out.

    Args:
        record: of the log.
        steps: number of steps of the run.
    """
    measured = record.get("measured", {})
    shown = [
        ("loss {:.3f}", record["loss"]),
        ("norm {:.3g}", record.get("grad_norm")),
        ("lr {:.3g}", record["lr"]),
        ("{:,.0f} tokens/s", measured.get("tokens_per_second")),
        ("{:,.3g} images/s", measured.get("images_per_second")),
        ("{:.1%} padding", measured.get("padding")),
        ("{:.1%} waiting for data", measured.get("data_wait")),
        ("MFU {:.1%}", measured.get("mfu")),
        ("{:.1f} GiB", measured.get("peak_memory_gib")),
        ("{} steps skipped", record["skipped_steps"] or None),
        ("{} samples dropped", record["dropped"]["total"] or None),
    ]
    parts = [form.format(value) for form, value in shown if value is not None]
    if "seconds_left" in measured:
        parts.append(f"{rounded(measured['seconds_left'])} left")
    return f"{record['stage']} {record['step']:,} of {steps:,}: {', '.join(parts)}"
