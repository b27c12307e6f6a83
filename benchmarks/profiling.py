"""How well the times per op add up, how much of them has the user's names, and how well a repeated ratio agrees.

    python benchmarks/profiling.py FLOAT=QUANTIZED[,QUANTIZED…] … [--shape MODEL:INPUT=SIZES] [--repeat N] [--load N]

For each pair: the share of op time under the names of the float model's ops, the sum over ops against the latency
without the profiler, and the speed-up with its interval. With --repeat the pair is profiled so often, and it is said
whether all intervals overlap; --load keeps so many processes busy meanwhile.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import quantscope
from quantscope.profiling import Profile

_BUSY = "x = 1\nwhile True:\n    x = (x * 1103515245 + 12345) % 2147483648"


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that do nothing but compute."""
    started = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def line(name: str, profile: Profile) -> str:
    """What the benchmark says of one pair."""
    latency, quantized = profile.latencies[0], profile.quantized
    assert quantized is not None
    sides = [
        (facts.sums.attributed, facts.sums.agreement, facts.sums.overhead) for facts in (profile.reference, quantized)
    ]
    shown = "  ".join(f"{named:7.2%} {sum_:5.0%} {overhead:5.0%}" for named, sum_, overhead in sides)
    return (
        f"{name:32} {shown}   {latency.reference.p50_us / 1000:7.2f} {quantized.sums.latency_us / 1000:7.2f} ms "
        f"{latency.speedup:5.2f}x ({latency.low:.2f} to {latency.high:.2f}, {latency.rounds} rounds)"
    )


def main() -> None:
    """Print a line per pair and repetition."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="FLOAT=QUANTIZED,…")
    parser.add_argument("--shape", action="append", default=[], metavar="MODEL:INPUT=SIZES")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--time", type=float, default=20.0)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--load", type=int, default=0)
    arguments = parser.parse_args()
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for text in arguments.shape:
        model, _, rest = text.partition(":")
        name, _, sizes = rest.rpartition("=")
        shapes.setdefault(model, {})[name] = tuple(map(int, sizes.split(",")))
    print(f"{'':32} {'float: named, sum, profiler':>21}  {'quantized: the same':>20}")
    with busy(arguments.load):
        for pair in arguments.pairs:
            reference, _, others = pair.partition("=")
            for quantized in others.split(","):
                found = []
                for _ in range(arguments.repeat):
                    profile = quantscope.profile(
                        reference, quantized, shapes=shapes.get(Path(reference).stem), threads=[arguments.threads],
                        seconds=arguments.time,
                    )  # fmt: skip
                    print(line(Path(quantized).stem, profile), flush=True)
                    found.append(profile.latencies[0])
                if len(found) > 1:
                    overlap = max(f.low or 0 for f in found) <= min(f.high or 0 for f in found)
                    print(f"  all {len(found)} intervals overlap: {'yes' if overlap else 'NO'}", flush=True)


if __name__ == "__main__":
    main()
