# SPDX-License-Identifier: Apache-2.0
"""Files of objects: what is read from them, and how a file that cannot be read is told."""

import io
from pathlib import Path

import pytest

from sdn.cli import manifests
from sdn.cli.errors import UsageError


def read(tmp_path: Path, text: str) -> list[dict[str, object]]:
    file = tmp_path / "objects.yaml"
    file.write_text(text, encoding="utf-8")
    return [document for _, document in manifests.read([str(file)])]


def test_several_documents_come_in_their_order_and_empty_ones_are_nothing(tmp_path: Path) -> None:
    text = "---\nkind: A\n---\n# nothing\n---\nkind: B\n"
    assert read(tmp_path, text) == [{"kind": "A"}, {"kind": "B"}]


def test_json_is_read_as_one_object_as_an_array_and_as_documents(tmp_path: Path) -> None:
    assert read(tmp_path, '{"kind": "A"}') == [{"kind": "A"}]
    assert read(tmp_path, '[{"kind": "A"}, {"kind": "B"}]') == [{"kind": "A"}, {"kind": "B"}]
    assert read(tmp_path, '{"kind": "A"}\n---\n{"kind": "B"}\n') == [{"kind": "A"}, {"kind": "B"}]


def test_a_list_is_what_is_in_it(tmp_path: Path) -> None:
    assert read(tmp_path, "kind: List\nitems:\n- kind: A\n- kind: B\n") == [{"kind": "A"}, {"kind": "B"}]


def test_a_date_stays_the_text_that_it_is(tmp_path: Path) -> None:
    text = "kind: A\nmetadata: {creationTimestamp: 2026-01-01T00:00:00Z}\n"
    assert read(tmp_path, text)[0]["metadata"] == {"creationTimestamp": "2026-01-01T00:00:00Z"}


def test_stdin_is_read_for_a_hyphen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("kind: A\n"))
    assert manifests.read(["-"]) == [("stdin, document 1", {"kind": "A"})]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has no object"),
        ("---\n---\n", "has no object"),
        ("just words", "document 1: an object is a map .* not a text"),
        ("kind: A\n---\n- 1\n", "document 2: an object is a map .* not a list"),
        ("kind: A\nkind: B\n", "key 'kind' stands twice in one map in line 2"),
        ("kind: [A\n", "is not YAML: .* in line"),
        ("1: A\n", "key 1 is not a text"),
        ('{"kind": ', "is not JSON: .* line 1, column 10"),
        ("kind: List\nitems: [{kind: A}, 7]\n", r"items\[1\] is not a map but a number"),
        ("a: !!python/object:os.system {}\n", "is not YAML"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        read(tmp_path, text)


def test_a_missing_file_and_one_that_is_no_text_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        manifests.read([str(tmp_path / "absent")])
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        manifests.read([str(tmp_path / "binary")])
