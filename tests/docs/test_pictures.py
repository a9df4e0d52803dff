# SPDX-License-Identifier: Apache-2.0
"""Each picture in the documentation is what its script draws today."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
SCRIPTS = sorted(PICTURES.glob("*.py"))


def test_every_picture_has_its_script() -> None:
    assert SCRIPTS
    assert {path.stem for path in PICTURES.glob("*.svg")} == {path.stem for path in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_picture_is_up_to_date_and_well_formed(script: Path) -> None:
    drawn = subprocess.run(
        [sys.executable, script, "--print"], capture_output=True, text=True, check=True
    ).stdout
    kept = script.with_suffix(".svg").read_text(encoding="utf-8")
    assert kept == drawn, f"run: python docs/pictures/{script.name}"
    assert ElementTree.fromstring(kept).tag.endswith("svg")
