# SPDX-License-Identifier: Apache-2.0
"""What controllers say to each other is read as it was meant, in whatever pieces it comes; and rubbish is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.ha.wire import MAGIC, Greeting, parse

texts = (
    st.text(max_size=60)
    .filter(lambda text: len(text.encode(errors="replace")) <= 255)
    .filter(lambda text: not any(0xD800 <= ord(letter) <= 0xDFFF for letter in text))
)
greetings = st.builds(Greeting, texts, texts)


@given(greetings, st.binary(max_size=40))
def test_a_greeting_is_read_as_soon_as_it_is_whole_and_never_before(greeting: Greeting, rest: bytes) -> None:
    data = greeting.encode()
    assert all(parse(data[:length]) is None for length in range(len(data)))
    assert parse(data + rest) == (greeting, rest)


@given(st.binary(max_size=600))
def test_other_bytes_are_refused_at_the_first_that_differs(data: bytes) -> None:
    if MAGIC.startswith(data) or data.startswith(MAGIC):
        return
    with pytest.raises(ValueError, match="no controller's greeting"):
        parse(data)


@given(st.binary(max_size=600))
def test_a_greeting_of_rubbish_is_one_or_an_error_and_has_an_end(data: bytes) -> None:
    try:
        parsed = parse(MAGIC + data)
    except ValueError:
        return
    assert parsed is not None or len(data) < 512


def test_names_that_do_not_fit_are_said() -> None:
    with pytest.raises(ValueError, match="longer than the 255 bytes"):
        Greeting("a" * 256, "1").encode()
