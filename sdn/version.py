# SPDX-License-Identifier: Apache-2.0
"""The version of this distribution, in the one place from which packaging, `--version`, logs and gRPC take
it."""

from typing import Final

VERSION: Final = "0.1.0"
