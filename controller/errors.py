# SPDX-License-Identifier: Apache-2.0
"""Errors that several parts of the controller raise."""


class PreconditionError(Exception):
    """The cluster's state does not allow it; the text says what to do first."""


class NotFoundError(Exception):
    """No such object."""


class UnavailableError(Exception):
    """Somebody who would know cannot be asked now: an agent that is not connected, or does not answer in time."""


class BusyError(Exception):
    """As many ask for the same at once as are served; the text says what to do."""
