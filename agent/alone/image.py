# SPDX-License-Identifier: Apache-2.0
"""Everything that a switch held at one moment, on disk.

The file begins with what it is, the version of what follows, and a digest of it; then, compressed, the datapath id,
groups and flows as the images that the codec knows (`sdn.openflow.image`, `sdn.openflow.groupimage`), in order, so that
equal contents are equal bytes. A flow is not understood here: what a controller of another version has written is kept
and put back like anything else.

The file is replaced as a whole, and is on disk before it has its name. What cannot be read is no image.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

FILE: Final = "switch.image"
VERSION: Final = 1
#: Bytes that flows and groups may have together: half a million flows of 500 bytes.
MAX_BYTES: Final = 1 << 28
#: What compressing costs counts, what it saves does not: flows are much alike.
_COMPRESSION: Final = 1

_MAGIC: Final = b"SDNSWTCH"
_HEAD: Final = struct.Struct("!8sH32s")
_BEGIN: Final = struct.Struct("!QII")
_GROUP: Final = struct.Struct("!II")
_FLOW: Final = struct.Struct("!HH")
#: The shortest images: table, priority and an empty match; time-outs, flags and cookie.
_SHORTEST_KEY, _SHORTEST_BODY, _SHORTEST_GROUP = 12, 16, 4


class ImageError(Exception):
    """An image that cannot be kept, or is none."""


class UnreadError(ImageError):
    """A file that could not be read, and may be later."""


class UnwrittenError(ImageError):
    """The disk has not taken an image, and may take it later."""


@dataclass(frozen=True)
class SwitchImage:
    """What one switch held, as images by their keys."""

    datapath_id: int
    groups: dict[int, bytes] = field(default_factory=dict)
    flows: dict[bytes, bytes] = field(default_factory=dict)


def encode(image: SwitchImage) -> bytes:
    """The file's bytes. ImageError when it is too large."""
    parts = [_BEGIN.pack(image.datapath_id, len(image.groups), len(image.flows))]
    for number in sorted(image.groups):
        body = image.groups[number]
        parts += (_GROUP.pack(number, len(body)), body)
    for key in sorted(image.flows):
        body = image.flows[key]
        parts += (_FLOW.pack(len(key), len(body)), key, body)
    contents = b"".join(parts)
    if len(contents) > MAX_BYTES:
        raise ImageError(f"{len(contents)} bytes of flows and groups are more than are kept ({MAX_BYTES})")
    packed = zlib.compress(contents, _COMPRESSION)
    return _HEAD.pack(_MAGIC, VERSION, hashlib.sha256(packed).digest()) + packed


def decode(data: bytes) -> SwitchImage:
    """What `encode` was given. ImageError, and nothing else, for any other bytes."""
    if len(data) < _HEAD.size or not data.startswith(_MAGIC):
        raise ImageError("it is no image of a switch")
    _, version, digest = _HEAD.unpack_from(data)
    if version != VERSION:
        raise ImageError(f"it is of version {version}, known is {VERSION}")
    packed = data[_HEAD.size :]
    if hashlib.sha256(packed).digest() != digest:
        raise ImageError("it is damaged")
    unpacking = zlib.decompressobj()
    try:
        contents = unpacking.decompress(packed, MAX_BYTES)
    except zlib.error as problem:
        raise ImageError(f"it is damaged: {problem}") from None
    if not unpacking.eof or unpacking.unused_data:
        raise ImageError(f"it is damaged, or of more than {MAX_BYTES} bytes")
    try:
        return _contents(contents)
    except struct.error:
        raise ImageError("it is cut short") from None


def _contents(data: bytes) -> SwitchImage:
    datapath_id, groups, flows = _BEGIN.unpack_from(data)
    image = SwitchImage(datapath_id)
    position = _BEGIN.size
    for _ in range(groups):
        number, length = _GROUP.unpack_from(data, position)
        position += _GROUP.size + length
        if length < _SHORTEST_GROUP or position > len(data):
            raise ImageError("a group is cut short")
        image.groups[number] = data[position - length : position]
    for _ in range(flows):
        of_key, of_body = _FLOW.unpack_from(data, position)
        start = position + _FLOW.size
        middle, position = start + of_key, start + of_key + of_body
        if of_key < _SHORTEST_KEY or of_body < _SHORTEST_BODY or position > len(data):
            raise ImageError("a flow is cut short")
        image.flows[data[start:middle]] = data[middle:position]
    if position != len(data) or len(image.groups) != groups or len(image.flows) != flows:
        raise ImageError("it does not end where it says")
    return image


class ImageFile:
    """The file in the agent's folder. For one thread."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._on_disk: bytes | None = None

    def load(self) -> SwitchImage | None:
        """The image, None when there is none. UnreadError; ImageError when the file is none."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as problem:
            raise UnreadError(str(problem)) from None
        return decode(data)

    def save(self, image: SwitchImage) -> bool:
        """Put it in place of the former one; whether that was another. UnwrittenError: the former one is there still.
        ImageError: this one cannot be kept, and the former one is gone.
        """
        try:
            data = encode(image)
        except ImageError:
            self._on_disk = None
            try:
                self.path.unlink(missing_ok=True)
            except OSError as problem:
                raise UnwrittenError(str(problem)) from None
            raise
        head = data[: _HEAD.size]
        if head == self._on_disk:
            return False
        try:
            if self._on_disk is None and self._head() == head:
                self._on_disk = head
                return False
            self._replace(data)
        except OSError as problem:
            self._on_disk = None
            raise UnwrittenError(str(problem)) from None
        self._on_disk = head
        return True

    def _head(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                return file.read(_HEAD.size)
        except FileNotFoundError:
            return b""

    def _replace(self, data: bytes) -> None:
        new = self.path.with_name(FILE + ".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            new.replace(self.path)
        except OSError:
            # A half of it must not take the little room that others may still find on the disk.
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            raise
