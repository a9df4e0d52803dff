# SPDX-License-Identifier: Apache-2.0
"""The program `sdnctl`: its commands, its global options, its exit codes, and how it tells errors.

An error is one line on stderr, whatever went wrong. Only with --debug is there a traceback.
"""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from sdn.cli import context, controllers, daemons, describe, objects, output, policy, switches
from sdn.cli.errors import CommandError, ExitCode, UsageError
from sdn.cli.lab import app as lab_app
from sdn.lab.errors import InvalidSpecError, LabError
from sdn.version import VERSION

PROGRAM = "sdnctl"
_WITH_VALUE = ("--server", "--lab")
_EPILOG = (
    "Exit codes: 0 done; 1 refused, or not found; 2 the command line or a file cannot be understood; "
    "3 no controller answers. "
    "The controller asked is that of --server, else of --lab, else $SDN_SERVER, else of the lab $SDN_LAB_NAME, "
    "else /run/sdn/controller.sock, else the only lab's."
)

app = typer.Typer(
    name=PROGRAM,
    help="See and change a software-defined network for pods, and run labs of it.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        output.line(f"{PROGRAM} {VERSION}")
        raise typer.Exit


@app.callback()
def _global(
    server: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="The controller to ask: HOST:PORT or unix:/PATH.")
    ] = None,
    lab: Annotated[str | None, typer.Option(metavar="NAME", help="Ask the controller of this lab.")] = None,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show where in the program an error comes from.", envvar="SDN_DEBUG"),
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version of this program.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    context.options.server = server
    context.options.lab = lab
    context.options.debug = debug


class Shell(enum.StrEnum):
    """Shells that typer knows how to complete in."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="Which shell's.")]) -> None:
    """Print the shell's completion script: source <(sdnctl completion bash)."""
    # The same variable by which the script, later, asks for completions.
    os.environ["_SDNCTL_COMPLETE"] = f"source_{shell.value}"
    typer.main.get_command(app).main(args=[], prog_name=PROGRAM)


app.command("get")(objects.get)
app.command("describe")(describe.describe)
app.command("flows")(switches.flows)
app.command("groups")(switches.groups)
app.command("apply")(objects.apply)
app.command("delete")(objects.delete)
app.add_typer(policy.app, name="policy")
app.add_typer(controllers.app, name="controllers")
app.add_typer(lab_app, name="lab")
app.command("version")(daemons.version)
app.command("log-level")(daemons.log_level)
app.command("completion")(completion)


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; what the process shall end with."""
    context.options = context.Options()
    context.options.debug = "--debug" in arguments[: _end_of_own(arguments)]
    try:
        code = app(args=hoisted(arguments), prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has enough of it; and nothing more may be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except typer.TyperException as problem:
        if context.options.debug:
            raise
        return _tell(problem.format_message() or "say what to do", ExitCode.USAGE, hint=True)
    except CommandError as problem:
        if context.options.debug:
            raise
        return _tell(str(problem), problem.exit_code, hint=isinstance(problem, UsageError))
    except LabError as problem:
        if context.options.debug:
            raise
        wrong = isinstance(problem, InvalidSpecError)
        return _tell(str(problem), ExitCode.USAGE if wrong else ExitCode.FAILED, hint=wrong)
    except Exception as problem:
        if context.options.debug:
            raise
        text = " ".join(str(problem).split())
        return _tell(f"unexpected {type(problem).__name__}: {text} (--debug shows where)", ExitCode.FAILED)
    return int(code) if isinstance(code, int) else ExitCode.OK


def hoisted(arguments: Sequence[str]) -> list[str]:
    """The command line with the global options at its front, so that they may stand anywhere before `--`."""
    end = _end_of_own(arguments)
    front: list[str] = []
    rest: list[str] = []
    position = 0
    while position < end:
        argument = arguments[position]
        if argument == "--debug" or argument.startswith(tuple(f"{name}=" for name in _WITH_VALUE)):
            front.append(argument)
        elif argument in _WITH_VALUE and position + 1 < end:
            front += arguments[position : position + 2]
            position += 1
        else:
            rest.append(argument)
        position += 1
    return [*front, *rest, *arguments[end:]]


def _end_of_own(arguments: Sequence[str]) -> int:
    """Where `--` ends what is ours; what follows belongs to the command that `lab exec` runs."""
    return list(arguments).index("--") if "--" in arguments else len(arguments)


def _tell(text: str, code: ExitCode, *, hint: bool = False) -> int:
    line = " ".join(text.split())
    print(f"{PROGRAM}: {line}{' (--help shows how)' if hint else ''}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
