"""Words of the command line as options."""

import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from typing import Annotated, Any, TypeVar

import tyro

from spikefold.cli._output import one_line, print_error
from spikefold.errors import SpikefoldError

T = TypeVar("T")
# options that many commands have
Json = Annotated[
    bool, tyro.conf.arg(help="print one JSON object and nothing else on standard output")
]
Overwrite = Annotated[bool, tyro.conf.arg(help="replace the output if it is there")]
# what help says of options that take any number of words, which the parser tells as "(default: )"
NEEDED = tyro.conf.arg(help_behavior_hint="(one or more)")
NONE_GIVEN = tyro.conf.arg(help_behavior_hint="(default: none)")
Device = Annotated[str, tyro.conf.arg(help="where it is computed: cpu, cuda, cuda:1, ...")]


def parse(kind: type[T], words: Sequence[str], prog: str, **options: Any) -> T:
    """The options that the words say; a value that is out of range is told in one line.

    Arguments:
        kind: a dataclass, whose fields are the options.
        words: that follow the command's name.
        prog: what help calls the command.
        options: others of `tyro.cli`.

    Raises:
        SystemExit: after --help (0), and for wrong usage (2), which was told.
    """
    told = io.StringIO()
    try:
        with redirect_stderr(told):
            return tyro.cli(kind, args=words, prog=prog, **options)
    except SystemExit as left:
        cause = _cause(left)
        if cause is None:
            sys.stderr.write(told.getvalue())
            raise
        # the parser draws a box around our message, and begins it with names of classes
        print_error(one_line(cause))
        raise SystemExit(2) from cause
    except SpikefoldError as error:
        print_error(one_line(error))
        raise SystemExit(2) from error


def _cause(left: BaseException) -> SpikefoldError | None:
    """The error of ours that had the parser leave, if there is one."""
    cause = left.__context__
    while not (cause is None or isinstance(cause, SpikefoldError)):
        cause = cause.__context__
    return cause
