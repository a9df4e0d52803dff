# SPDX-License-Identifier: Apache-2.0
"""Each page and picture that is generated is what its script writes today; links between the pages lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.docs.markdown import ROOT, documents

DOCS = ROOT / "docs"
SCRIPTS = sorted([*DOCS.glob("generate_*.py"), *(DOCS / "pictures").glob("*.py")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_is_generated_is_up_to_date(script: Path) -> None:
    done = subprocess.run(
        [sys.executable, script, "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_picture_is_drawn_by_a_script_and_well_formed() -> None:
    sources = "".join(script.read_text(encoding="utf-8") for script in SCRIPTS)
    pictures = list((DOCS / "pictures").glob("*.svg"))
    assert pictures
    for picture in pictures:
        assert ElementTree.fromstring(picture.read_text(encoding="utf-8")).tag.endswith("svg")
        assert picture.stem in {script.stem for script in SCRIPTS} or picture.name in sources


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
