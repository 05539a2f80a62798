"""The command line: `lipkit COMMAND`. Each command lives in its own module and is loaded on use."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from .._version import __version__
from ..errors import Error, printable

COMMANDS = {
    "restore": "denoise, fill in or enlarge a picture",
    "find": "find a sparse network for a picture and keep it as a ticket",
    "mri": "a picture from the k-space of several coils",
    "ticket": "look into the file of a ticket or mask",
    "run": "execute chapters with parameters of your own",
    "book": "execute all chapters and render the book",
    "sweep": "run a grid of experiments and keep their records",
    "records": "list, filter, check and export those records",
    "doctor": "show what this machine offers and what is missing",
}


class _Commands(click.Group):
    """A group whose commands are modules of this package, each with a click command `command`."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return import_module(f"{__name__}.{name}").command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):  # without loading them
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="lipkit %(version)s")
def cli() -> None:
    """Sparse image priors: run the chapters of the book, build it, restore images."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; bad input of any kind is one line on stderr and exit code 2."""
    try:
        code = cli.main(args=arguments, prog_name="lipkit", standalone_mode=False)
    except (KeyboardInterrupt, click.exceptions.Abort):
        sys.exit(130)
    except click.exceptions.ClickException as problem:
        _fail(problem.format_message())
    except Error as problem:
        _fail(str(problem))
    except BrokenPipeError:  # the reader of our output has gone: say nothing
        sys.stderr.close()
        sys.exit(0)
    except OSError as problem:
        name = f"{problem.filename}: " if problem.filename else ""
        _fail(f"{name}{problem.strerror or problem}")
    sys.exit(code if isinstance(code, int) else 0)


def _fail(sentence: str) -> None:
    print("lipkit: error: " + printable(" ".join(sentence.split())), file=sys.stderr)
    sys.exit(2)
