# SPDX-License-Identifier: Apache-2.0
"""The file with what a switch held: what goes in comes out, and what is damaged is no image."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.alone import image as images
from agent.alone.image import ImageError, ImageFile, SwitchImage, decode, encode

KEY, BODY = bytes([3, 0, 1, 0]) + bytes(8), bytes(16)
SAMPLE = SwitchImage(0xABCD, {7: b"\x01\0\0\0"}, {KEY: BODY, b"\x04" + KEY[1:]: BODY + b"actions!"})

contents = st.builds(
    SwitchImage,
    st.integers(0, (1 << 64) - 1),
    st.dictionaries(st.integers(0, (1 << 32) - 1), st.binary(min_size=4, max_size=100), max_size=8),
    st.dictionaries(st.binary(min_size=12, max_size=60), st.binary(min_size=16, max_size=90), max_size=20),
)


@given(contents)
def test_what_is_encoded_is_decoded(image: SwitchImage) -> None:
    assert decode(encode(image)) == image


@given(contents)
def test_equal_contents_are_equal_bytes_in_whatever_order_they_came(image: SwitchImage) -> None:
    turned = SwitchImage(
        image.datapath_id,
        dict(reversed(image.groups.items())),
        dict(reversed(image.flows.items())),
    )
    assert encode(turned) == encode(image)


@given(contents, st.data())
def test_one_changed_byte_anywhere_is_noticed(image: SwitchImage, data: st.DataObject) -> None:
    encoded = bytearray(encode(image))
    where = data.draw(st.integers(0, len(encoded) - 1))
    encoded[where] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ImageError):
        decode(bytes(encoded))


@given(contents, st.data())
def test_what_is_cut_short_or_goes_on_is_noticed(image: SwitchImage, data: st.DataObject) -> None:
    encoded = encode(image)
    with pytest.raises(ImageError):
        decode(encoded[: data.draw(st.integers(0, len(encoded) - 1))])
    with pytest.raises(ImageError):
        decode(encoded + data.draw(st.binary(min_size=1, max_size=20)))


@given(st.binary(max_size=300))
def test_any_contents_under_a_right_digest_are_an_image_or_an_error(inner: bytes) -> None:
    import hashlib
    import zlib

    packed = zlib.compress(inner)
    head = struct.pack("!8sH32s", b"SDNSWTCH", images.VERSION, hashlib.sha256(packed).digest())
    try:
        found = decode(head + packed)
    except ImageError:
        return
    assert encode(found)


def test_another_version_is_named() -> None:
    encoded = bytearray(encode(SAMPLE))
    encoded[8:10] = struct.pack("!H", images.VERSION + 1)
    with pytest.raises(ImageError, match=f"version {images.VERSION + 1}, known is {images.VERSION}"):
        decode(bytes(encoded))


def test_what_unpacks_to_more_than_is_kept_is_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = encode(SwitchImage(1, {}, {KEY: BODY + bytes(4000)}))
    monkeypatch.setattr(images, "MAX_BYTES", 2000)
    with pytest.raises(ImageError, match="2000 bytes"):
        decode(encoded)


def test_the_file_holds_the_last_image_and_is_nobody_elses(tmp_path: Path) -> None:
    file = ImageFile(tmp_path)
    assert file.load() is None
    assert file.save(SAMPLE)
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert ImageFile(tmp_path).load() == SAMPLE
    other = SwitchImage(1, {}, {KEY: BODY})
    assert file.save(other)
    assert file.load() == other
    assert sorted(path.name for path in tmp_path.iterdir()) == [images.FILE]


def test_the_same_again_is_not_written(tmp_path: Path) -> None:
    file = ImageFile(tmp_path)
    file.save(SAMPLE)
    before = file.path.stat().st_ino
    assert not file.save(SAMPLE)
    assert not ImageFile(tmp_path).save(SAMPLE), "another agent finds that it is there already"
    assert file.path.stat().st_ino == before


def test_what_is_too_large_takes_the_older_one_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ImageFile(tmp_path)
    file.save(SAMPLE)
    monkeypatch.setattr(images, "MAX_BYTES", 500)
    with pytest.raises(ImageError, match="more than are kept"):
        file.save(SwitchImage(1, {}, {KEY: BODY + bytes(4000)}))
    assert file.load() is None, "what the switch no longer holds must not come back"


def test_a_disk_that_refuses_is_an_error_and_leaves_the_former_image(tmp_path: Path) -> None:
    file = ImageFile(tmp_path)
    file.save(SAMPLE)
    (tmp_path / f"{images.FILE}.new").mkdir()
    with pytest.raises(ImageError, match="directory"):
        file.save(SwitchImage(1, {}, {KEY: BODY}))
    assert file.load() == SAMPLE
    (tmp_path / f"{images.FILE}.new").rmdir()
    assert file.save(SwitchImage(1, {}, {KEY: BODY})), "the next time it is written"


def test_what_a_disk_takes_only_half_of_leaves_no_half(tmp_path: Path) -> None:
    """In a process whose files may have 100 bytes."""
    code = "import sys; from pathlib import Path; from agent.alone.image import *; import os\n"
    code += "image = SwitchImage(1, {}, {os.urandom(20): os.urandom(500)})\n"
    code += "try: ImageFile(Path(sys.argv[1])).save(image)\n"
    code += "except UnwrittenError as problem: print(problem)\n"
    command = ["prlimit", "--fsize=100", sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_half_written_file_of_a_killed_agent_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / f"{images.FILE}.new").write_bytes(b"half")
    file = ImageFile(tmp_path)
    assert file.load() is None
    assert file.save(SAMPLE)
    assert file.load() == SAMPLE
