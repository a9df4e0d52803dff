# SPDX-License-Identifier: Apache-2.0
"""Debian's stock kernel, fetched and unpacked but never installed.

The machines that run our tests may have a kernel without Open vSwitch, and a module cannot be added to a
kernel that forbids it. So the tests of the kernel datapath bring a kernel of their own: the package that
`linux-image-amd64` depends on today, downloaded by apt (which checks its signature), unpacked into a cache
folder of the user, its modules indexed by depmod, its compressed image turned into the plain `vmlinux` that
qemu boots without having to emulate the decompressor.

Lives here: everything about the package and the cache. Does not: qemu (guest.py), the first program
(initramfs.py).
"""

from __future__ import annotations

import bz2
import fcntl
import gzip
import lzma
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

META_PACKAGE = "linux-image-amd64"
"""The package whose dependency names Debian's kernel of the day."""

Report = Callable[[str], None]
"""Where progress goes, one line a step."""


class KernelUnavailableError(Exception):
    """No kernel can be had; the text says what is missing and what to do."""


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel that qemu can boot."""

    release: str
    """As `uname -r` will tell it, for example 6.1.0-56-amd64."""
    vmlinux: Path
    """The uncompressed ELF image."""
    modules: Path
    """The folder that holds a folder named `release`: what /lib/modules is on a machine with this kernel."""

    @property
    def module_folder(self) -> Path:
        return self.modules / self.release


def cache_folder() -> Path:
    """Where unpacked kernels are kept: $XDG_CACHE_HOME/sdn-kernel, by default ~/.cache/sdn-kernel."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sdn-kernel"


def prepare(report: Report) -> Kernel:
    """Give the newest kernel that the package lists know, downloading and unpacking it when the cache lacks
    it.

    Without a package registry the newest kernel of the cache serves. Raises KernelUnavailableError with what
    to do.
    """
    require({"dpkg-deb": "dpkg", "depmod": "kmod", "apt-cache": "apt", "apt-get": "apt"})
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / "lock"):
        try:
            place = _current(cache, report)
        except (subprocess.CalledProcessError, KernelUnavailableError):
            # Package lists grow old: they name a version that the mirror has replaced.
            report("reading the package lists")
            subprocess.run(["apt-get", "-q", "update"], capture_output=True, stdin=subprocess.DEVNULL)
            place = _current_or_kept(cache, report)
        return _kernel_in(place)


def require(programs: dict[str, str]) -> None:
    """Check that each program (key) is there; raises KernelUnavailableError naming the Debian packages
    (values) to install."""
    packages = sorted({package for program, package in programs.items() if shutil.which(program) is None})
    if packages:
        raise KernelUnavailableError(f"missing programs: run `apt-get install -y {' '.join(packages)}`")


def extract_vmlinux(image: bytes) -> bytes:
    """Take the ELF kernel out of a bzImage.

    The setup header names where the compressed payload lies (Documentation/arch/x86/boot.rst of Linux:
    setup_sects at 0x1f1, payload_offset at 0x248 and payload_length at 0x24c, both relative to the
    protected-mode part).
    """
    if image[0x202:0x206] != b"HdrS":
        raise KernelUnavailableError("the package's image is not a bzImage (no HdrS header)")
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    plain = _decompress(image[start : start + length])
    if plain[:4] != b"\x7fELF":
        raise KernelUnavailableError("the image's payload is not an ELF kernel")
    return plain


def _decompress(payload: bytes) -> bytes:
    """Decompress by magic number. What follows the stream (the kernel appends the plain size) is ignored."""
    if payload.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor(format=lzma.FORMAT_XZ).decompress(payload)
    if payload.startswith(b"\x1f\x8b"):
        with tempfile.TemporaryFile() as file:
            file.write(payload[:-4])
            file.seek(0)
            return gzip.GzipFile(fileobj=file).read()
    if payload.startswith(b"BZh"):
        return bz2.BZ2Decompressor().decompress(payload)
    if payload.startswith(b"\x5d\0\0"):
        return lzma.LZMADecompressor(format=lzma.FORMAT_ALONE).decompress(payload)
    raise KernelUnavailableError(
        f"the image is compressed in a way unknown here (it begins with {payload[:6].hex()})"
    )


def _current_package() -> tuple[str, str]:
    """Name and version of the package that META_PACKAGE depends on, from the lists on this machine."""
    shown = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", META_PACKAGE], capture_output=True, text=True
    )
    match = re.search(r"^Depends: (linux-image-\S+)(?: \(= ([^)]+)\))?", shown.stdout, re.MULTILINE)
    if match is None:
        raise KernelUnavailableError(
            f"apt knows no {META_PACKAGE}: run `apt-get update` (this test needs Debian on amd64)"
        )
    policy = subprocess.run(["apt-cache", "policy", match[1]], capture_output=True, text=True, check=True)
    candidate = re.search(r"^\s*Candidate: (\S+)", policy.stdout, re.MULTILINE)
    version = match[2] or (candidate[1] if candidate else None)
    if version is None or version == "(none)":
        raise KernelUnavailableError(f"apt has no version of {match[1]}: run `apt-get update`")
    return match[1], version


def _current(cache: Path, report: Report) -> Path:
    """The unpacked kernel that the package lists name, fetched when the cache lacks it."""
    package, version = _current_package()
    place = cache / f"{package}_{version.replace(':', '%3a')}"
    if not place.exists():
        _unpack(package, version, place, report)
    return place


def _current_or_kept(cache: Path, report: Report) -> Path:
    """The same; where no package registry is reached, the newest kernel of the cache."""
    try:
        return _current(cache, report)
    except (subprocess.CalledProcessError, KernelUnavailableError) as error:
        kept = [place for place in cache.glob("linux-image-*") if (place / "boot" / "vmlinux").exists()]
        if not kept:
            detail = error.stderr if isinstance(error, subprocess.CalledProcessError) else error
            raise KernelUnavailableError(
                f"no kernel package can be fetched: {str(detail).strip()}\n"
                "check that this machine reaches a Debian mirror: `apt-get update`"
            ) from error
        newest = max(kept, key=lambda place: place.stat().st_mtime)
        report(f"no kernel package can be fetched; using {newest.name} of {cache}")
        return newest


def _unpack(package: str, version: str, place: Path, report: Report) -> None:
    """Download and unpack into a folder beside `place`, then rename, so that what is at `place` is whole."""
    with tempfile.TemporaryDirectory(dir=place.parent, prefix="unpacking-") as name:
        work = Path(name)
        report(f"downloading {package} {version} (70 MB)")
        # As root apt would drop to a user of its own who cannot write in root's cache; signatures are checked
        # all the same.
        command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", f"{package}={version}"]
        subprocess.run(
            command, cwd=work, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        report("unpacking the kernel (400 MB)")
        root = work / "root"
        (archive,) = work.glob("*.deb")
        subprocess.run(
            ["dpkg-deb", "-x", str(archive), str(root)], check=True, capture_output=True, text=True
        )
        (image,) = (root / "boot").glob("vmlinuz-*")
        release = image.name.removeprefix("vmlinuz-")
        (root / "boot" / "vmlinux").write_bytes(extract_vmlinux(image.read_bytes()))
        subprocess.run(["depmod", "-b", str(root), release], check=True, capture_output=True, text=True)
        root.rename(place)


def _kernel_in(place: Path) -> Kernel:
    (module_folder,) = (place / "lib" / "modules").iterdir()
    return Kernel(module_folder.name, place / "boot" / "vmlinux", module_folder.parent)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two test runs at once on one machine: the second waits until the first has filled the cache."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
