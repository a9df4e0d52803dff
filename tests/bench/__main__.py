# SPDX-License-Identifier: Apache-2.0
"""Runs every benchmark, or those named, one after the other: `python -m tests.bench [--quick] [NAME ...]`."""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from pathlib import Path
from typing import Final

from tests.bench import frame

BENCHMARKS: Final = {
    "cni_add": "CNI ADD and DEL beside the reference bridge with host-local",
    "flows_100k": "100,000 flows into a switch and back beside ovs-ofctl",
    "throughput": "iperf3 from pod to pod beside the same datapath with one NORMAL flow",
    "controller_memory": "the controller's memory for each 1,000 pods",
    "services": "10,000 Services on a switch: programming, changing, connecting through them",
    "scale": "1,000 switches and 30,000 pods at three controllers: full sync, policies, storms, a takeover",
    "policy": "the policy engine with 75,000 policies and 100,000 pods, and what single changes cost",
}


def main(argv: list[str] | None = None) -> int:
    listing = "\n".join(f"  {name:18} {what}" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=f"{__doc__}\n\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run (default: all)")
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it runs, not how fast")
    parser.add_argument(
        "--results", type=Path, default=frame.RESULTS, help="file to append to (default %(default)s)"
    )
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)} (there are {', '.join(BENCHMARKS)})")
    failed: list[str] = []
    for name in options.names or BENCHMARKS:
        print(f"--- {name}: {BENCHMARKS[name]}", flush=True)
        module = importlib.import_module(f"tests.bench.{name}")
        try:
            quick = ["--quick"] if options.quick else []
            code = frame.main(module.run, module.__doc__, [*quick, "--results", str(options.results)])
        except Exception:  # noqa: BLE001 - one that cannot run must not keep the others from running
            traceback.print_exc()
            code = 1
        if code != 0:
            failed.append(name)
    if failed:
        print(f"did not run: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
