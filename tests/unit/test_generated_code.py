# SPDX-License-Identifier: Apache-2.0
"""What is generated and kept in the tree is what its source says today."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_grpc_code_is_what_the_proto_files_say() -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "generate-proto", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
