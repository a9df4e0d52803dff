# SPDX-License-Identifier: Apache-2.0
"""The guest's first files: a busybox, a handful of modules, and the script that turns the host's root into
the guest's.

The guest has no disk. Its root is the host's root, shared read-only over 9p, under an overlay whose upper
layer is a tmpfs: every program of the host runs there as it is, and nothing that it writes reaches the host. What labs
of the host make and remove meanwhile (/run, /etc/netns) must not be below what the guest makes: it has its own.
/run, /dev, /proc and /sys are the guest's own, so that it sees no socket and no state of the host's programs.

Lives here: the cpio archive (the "newc" format of Documentation/driver-api/early-userspace/buffer-format.rst
of Linux) and the shell scripts. Does not: how qemu is called (guest.py), how commands are run once it is up
(executor.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.image import Kernel, KernelUnavailableError

SAY = "kernel-test: "
"""How a line of the console begins that tells progress."""

BOOT_MODULES = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")
"""What the kernel needs before it sees the host's root; with what they depend on."""

_APPLETS = ("sh", "mount", "mkdir", "insmod", "cp", "switch_root", "poweroff")

_INIT = f"""#!/bin/sh
set -e
trap 'echo "{SAY}the guest could not be set up"; poweroff -f' EXIT
for module in /modules/*.ko; do insmod "$module"; done
echo "{SAY}kernel is up, mounting the host's root"
mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=524288 host /host
mount -t tmpfs -o mode=755,size=75% tmpfs /writes
mkdir /writes/upper /writes/work
mount -t overlay -o lowerdir=/host,upperdir=/writes/upper,workdir=/writes/work overlay /new
mount -t proc proc /new/proc
mount -t sysfs sysfs /new/sys
mount -t devtmpfs devtmpfs /new/dev
mkdir -p /new/dev/pts /new/dev/shm /new/lib/modules
mount -t devpts devpts /new/dev/pts
mount -t tmpfs tmpfs /new/dev/shm
mount -t tmpfs -o mode=755 tmpfs /new/run
mkdir -p /new/etc/netns
mount -t tmpfs -o mode=755 tmpfs /new/etc/netns
mount -t cgroup2 cgroup2 /new/sys/fs/cgroup
mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=524288 modules /new/lib/modules
mkdir /new/run/lock /new/run/netns /new/run/kernel-test
cp /job/* /bin/busybox /new/run/kernel-test/
exec switch_root /new /bin/sh /run/kernel-test/start
"""

_START = f"""#!/bin/sh
# The guest's process 1, on the host's root: brings up what every test needs, then serves commands until it is
# told to end.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH HOME=/root LANG=C.UTF-8
ulimit -n 65536
hostname kernel-test
ip link set lo up
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
# Open vSwitch 3.1 looks at the number of processors every 10 s, counted from the kernel's start: an
# ovs-vswitchd that starts before that sees none, tells the kernel no thread to send packets to, and never
# learns better (lost upcalls).
while read -r uptime idle < /proc/uptime && [ "${{uptime%%.*}}" -lt 11 ]; do sleep 0.2; done
echo "{SAY}starting the executor"
/usr/bin/python3 -IS /run/kernel-test/executor.py || echo "{SAY}the executor failed"
/run/kernel-test/busybox poweroff -f
"""


@dataclass(frozen=True)
class Entry:
    """One file of the archive."""

    path: str
    data: bytes
    mode: int


def build(kernel: Kernel) -> bytes:
    """The whole archive for this kernel. Raises KernelUnavailableError when busybox or a module is
    missing."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise KernelUnavailableError("missing programs: run `apt-get install -y busybox-static`")
    executor = Path(__file__).with_name("executor.py").read_bytes()
    entries = [directory(name) for name in ("bin", "dev", "host", "job", "modules", "new", "writes")]
    entries.append(Entry("bin/busybox", Path(busybox).read_bytes(), 0o100755))
    entries += [Entry(f"bin/{applet}", b"busybox", 0o120777) for applet in _APPLETS]
    entries.append(Entry("init", _INIT.encode(), 0o100755))
    entries.append(Entry("job/start", _START.encode(), 0o100755))
    entries.append(Entry("job/executor.py", executor, 0o100644))
    for index, module in enumerate(load_order(kernel.module_folder, BOOT_MODULES)):
        # The number keeps the order of loading when the shell expands *.ko.
        entries.append(Entry(f"modules/{index:02}-{module.name}", module.read_bytes(), 0o100644))
    return archive(entries)


def load_order(module_folder: Path, wanted: Iterable[str]) -> list[Path]:
    """The files of the wanted modules and of all that they depend on, each after its dependencies.

    `modules.dep` is depmod's: "a.ko: b.ko c.ko" lists all dependencies of a, to be loaded from the last to
    the first.
    """
    dependencies: dict[str, list[str]] = {}
    for line in (module_folder / "modules.dep").read_text().splitlines():
        module, _, needs = line.partition(":")
        dependencies[module] = needs.split()
    by_name = {Path(module).name.split(".")[0].replace("-", "_"): module for module in dependencies}
    ordered: list[str] = []
    for name in wanted:
        if name.replace("-", "_") not in by_name:
            raise KernelUnavailableError(f"{module_folder} has no module {name}")
        module = by_name[name.replace("-", "_")]
        ordered += [file for file in [*reversed(dependencies[module]), module] if file not in ordered]
    return [module_folder / file for file in ordered]


def directory(path: str) -> Entry:
    return Entry(path, b"", 0o040755)


def archive(entries: Iterable[Entry]) -> bytes:
    """Encode as cpio "newc": 110 bytes of hexadecimal header, the name, the data, each padded to four
    bytes."""
    encoded = [_encode(entry, inode) for inode, entry in enumerate(entries, start=1)]
    return b"".join([*encoded, _encode(Entry("TRAILER!!!", b"", 0), 0)])


def _encode(entry: Entry, inode: int) -> bytes:
    name = entry.path.encode() + b"\0"
    fields = (inode, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
