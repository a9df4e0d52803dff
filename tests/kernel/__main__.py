# SPDX-License-Identifier: Apache-2.0
"""Run one command under Debian's stock kernel: `python -m tests.kernel -- ovs-dpctl show`.

Prints what the command prints, tells progress on stderr, and exits with the command's exit code (124 when it
ran out of time, as timeout(1) does).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.kernel.guest import Guest, GuestFailedError
from tests.kernel.image import KernelUnavailableError, prepare


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kernel", description=__doc__)
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for the command (default 600)")
    parser.add_argument("--console", action="store_true", help="also print the end of the guest's console")
    parser.add_argument("command", nargs="+", help="the command and its arguments, after --")
    options = parser.parse_args()
    try:
        with Guest(prepare(_report), _report) as guest:
            done = guest.run(options.command, timeout=options.timeout, cwd=Path.cwd(), echo=True)
            if options.console:
                _report(guest.console())
    except (KernelUnavailableError, GuestFailedError) as error:
        _report(str(error))
        return 125
    _report(f"exit code {done.returncode} after {done.seconds:.1f} s")
    if done.timed_out:
        return 124
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


if __name__ == "__main__":
    sys.exit(main())
