"""The rows of bench_model as Markdown."""

from __future__ import annotations


def tables(rows: list[dict]) -> str:
    """A table for each contest."""
    lines: list[str] = []
    case = None
    for row in rows:
        if row["case"] != case:
            case = row["case"]
            lines += ["", f"{case[0].upper()}{case[1:]}", ""]
            lines += [
                "| | median ms | 0.2 to 0.8 | times as fast as the first | peak MB | GFLOP/s | pairs/s |"
            ]
            lines += ["|---|---|---|---|---|---|---|"]
        time, memory, pairs = row["milliseconds"], row["peak_megabytes"], row["pairs_per_second"]
        rate = f"{row['gigaflops_per_second']:.0f}" if row["gigaflops_per_second"] else ""
        speed = f"{row['times_faster']:.2f}"
        # A part is no contestant of the part above it, nor is a floor.
        rival = not case.startswith("parts") and not row["contestant"].startswith("the ")
        lines.append(
            f"| {row['contestant']} | {time['median']:.1f} | {time['low']:.1f} to {time['high']:.1f} "
            f"| {speed if rival else ''} | {'' if memory is None else memory} | {rate if rival else ''} "
            f"| {f'{pairs:.2f}' if pairs and rival else ''} |"
        )
    return "\n".join(lines[1:])


def page(report: dict) -> str:
    machine = report["machine"]
    versions = ", ".join(f"{name} {value}" for name, value in machine.items() if name != "device")
    title = f"# The models on {machine['device']}"
    return f"{title}\n\n`{report['command']}`: {versions}.\n\n{tables(report['rows'])}\n"
