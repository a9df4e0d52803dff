# SPDX-License-Identifier: Apache-2.0
"""A container image made on the spot: busybox and nothing else, as an OCI image layout in one tar.

No registry is needed and nothing is downloaded: Debian's statically linked busybox is the only file in the
image (beside the links to its applets), and `ctr images import` reads the tar. Layout and media types are
those of the OCI image specification, version 1.0.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path
from typing import Any, Final

BUSYBOX: Final = Path("/usr/bin/busybox")
APPLETS: Final = ("sh", "sleep", "ping", "ip", "wget", "nc", "cat", "echo", "httpd", "true", "kill")
ENTRYPOINT: Final = ("/bin/sleep", "2147483647")
"""What runs when nobody says otherwise: sleeps for good, as the pause image of a sandbox should."""

_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


def write(path: Path, name: str) -> None:
    """Writes the image as an OCI layout tar to `path`, to be imported under the reference `name`."""
    blobs: dict[str, bytes] = {}
    layer = _layer()
    layer_descriptor = _blob(blobs, "application/vnd.oci.image.layer.v1.tar", layer)
    config = _json(
        {
            "architecture": _MACHINES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Entrypoint": list(ENTRYPOINT), "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [layer_descriptor["digest"]]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _blob(blobs, "application/vnd.oci.image.config.v1+json", config),
            "layers": [layer_descriptor],
        }
    )
    descriptor = _blob(blobs, "application/vnd.oci.image.manifest.v1+json", manifest)
    descriptor["annotations"] = {"io.containerd.image.name": name}
    with tarfile.open(path, "w") as tar:
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", _json({"schemaVersion": 2, "manifests": [descriptor]}))
        for digest, content in blobs.items():
            _add(tar, f"blobs/sha256/{digest}", content)


def _layer() -> bytes:
    """The root file system: busybox, a link for each applet, and the folders that a runtime mounts over."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("bin", "etc", "tmp", "proc", "sys", "dev"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        _add(tar, "bin/busybox", BUSYBOX.read_bytes(), mode=0o755)
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def _blob(blobs: dict[str, bytes], media_type: str, content: bytes) -> dict[str, Any]:
    """Keeps the content under its digest and gives the descriptor that points at it."""
    digest = hashlib.sha256(content).hexdigest()
    blobs[digest] = content
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
