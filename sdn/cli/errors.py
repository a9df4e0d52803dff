# SPDX-License-Identifier: Apache-2.0
"""How a command ends other than well. Exit codes are part of what scripts rely on."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """What `$?` says."""

    OK = 0
    #: The request was understood and refused, or what was asked for is not there.
    FAILED = 1
    #: The command line, or a file that it names, cannot be understood.
    USAGE = 2
    #: No controller answers.
    UNREACHABLE = 3
    #: Ctrl-C; 128 and the signal's number, as shells count.
    INTERRUPTED = 130


class CommandError(Exception):
    """Ends the command with one line on stderr."""

    exit_code = ExitCode.FAILED


class UsageError(CommandError):
    """The person must write something else."""

    exit_code = ExitCode.USAGE


class UnreachableError(CommandError):
    """No server, or none that answers."""

    exit_code = ExitCode.UNREACHABLE


class NoAnswerError(CommandError):
    """What was asked cannot be answered, and 1 is one of the answers: ends as what cannot be understood does."""

    exit_code = ExitCode.USAGE
