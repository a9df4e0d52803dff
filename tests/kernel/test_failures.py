# SPDX-License-Identifier: Apache-2.0
"""When the harness cannot do its work it says what failed, and leaves no process behind."""

from __future__ import annotations

import subprocess

import pytest

from tests.kernel.guest import Guest, GuestFailedError
from tests.kernel.image import Kernel, KernelUnavailableError, Report, extract_vmlinux, require

pytestmark = [pytest.mark.kernel, pytest.mark.root]


def test_a_missing_program_names_the_package_that_brings_it() -> None:
    with pytest.raises(KernelUnavailableError, match=r"`apt-get install -y some-package`$"):
        require({"sh": "dash", "no-such-program": "some-package"})


def test_an_image_that_is_no_kernel_is_refused() -> None:
    with pytest.raises(KernelUnavailableError, match="not a bzImage"):
        extract_vmlinux(bytes(4096))


def test_a_kernel_that_panics_ends_the_guest_and_its_last_words_are_told(
    kernel: Kernel, report: Report
) -> None:
    with Guest(kernel, report) as guest:
        qemu = guest.pid
        guest.shell("echo 1 > /proc/sys/kernel/sysrq").check()
        with pytest.raises(GuestFailedError, match="Kernel panic"):
            guest.shell("echo c > /proc/sysrq-trigger")
        with pytest.raises(GuestFailedError):
            guest.run(["true"])
    assert not _runs(qemu)


def test_the_guest_ends_with_its_context(kernel: Kernel, report: Report) -> None:
    with Guest(kernel, report) as guest:
        qemu = guest.pid
        assert _runs(qemu)
    assert not _runs(qemu)


def _runs(pid: int) -> bool:
    return subprocess.run(["ps", "-p", str(pid)], capture_output=True).returncode == 0
