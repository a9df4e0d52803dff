# SPDX-License-Identifier: Apache-2.0
"""The checksum of an echo request, against a worked example and its own defining property."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from sdn.lab.probe import checksum


def test_the_worked_example_of_the_rfc() -> None:
    # RFC 1071, section 3: the words 0001 f203 f4f5 f6f7 sum to ddf2; the checksum is its complement.
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


@given(st.binary(max_size=200))
def test_with_its_checksum_in_place_data_sums_to_all_ones(data: bytes) -> None:
    data += b"\0" * (len(data) % 2)
    assert checksum(data + struct.pack("!H", checksum(data))) == 0
