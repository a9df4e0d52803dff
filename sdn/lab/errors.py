# SPDX-License-Identifier: Apache-2.0
"""What goes wrong in a lab, told in one line: what, where, and what to do."""


class LabError(Exception):
    """The lab cannot do what was asked. The text is for the person who asked."""


class InvalidSpecError(LabError):
    """What was asked for cannot be a lab; nothing was tried."""


class CniError(LabError):
    """The plugin answered with an error object (CNI specification, section 5, "Error")."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        self.code = code
        self.message = message
        self.details = details
        super().__init__(
            f"the CNI plugin refused (code {code}): {message}{f': {details}' if details else ''}"
        )
