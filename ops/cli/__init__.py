"""The `yike` command line: everything an operator or a developer does to a running system.

One module for each group of commands, imported when one of its commands is called; `base` holds the common options,
printing and exit statuses, `site` finds the stack.
"""

import json
import logging
import sys
from collections.abc import Sequence
from typing import Final

from cyclopts import App, CycloptsError, Group
from rich.markup import escape

from ops.cli.base import INTERRUPTED, NO_STACK, WRONG_CALL, CommandError, console, error_console
from ops.stack.errors import StackError

HELP: Final = """
Yike (一课): supervised off-campus training, one lesson taught, one lesson released.

A stack lives in a folder (`--home`, YIKE_HOME, else `.yike` here). Other servers are named by YIKE_KAFKA and
YIKE_POSTGRES. Every command takes `--json` and explains itself with `--help`.

Exit statuses: 0 done, 1 something is wrong, 2 wrong call, 3 no stack answers, 4 no such thing, 130 interrupted.
"""

COMMANDS: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "The stack": {
        "up": ("running:up", "Start the whole system in the background."),
        "down": ("running:down", "Stop it. Data stay."),
        "demo": ("running:demo", "Play a whole story on a stack in the foreground; --story says which."),
    },
    "Look into it": {
        "status": ("running:status", "Processes, what waits, what is parked, what nobody has read yet."),
        "timeline": ("timeline:timeline", "Everything that was said about one order, in order."),
        "ledger": ("ledger:app", "The books of escrow: prove them, or show one order's."),
        "trouble": ("suspense:trouble", "Payments that banks refused or gave back, and that are not made yet."),
        "reconcile": ("reconcile:reconcile", "A bank's statement of a day against instructions against ledger."),
        "breaks": ("breaks:app", "What differs from the banks' statements: look, say why, agree."),
    },
    "Mend it": {
        "dlq": ("dlq:app", "Dead letters: what could not be handled. Look at them, replay them."),
        "suspense": ("suspense:app", "Money that came and belongs nowhere: list it, match it, send it back."),
        "windup": ("windup:app", "An institution is gone: refund all its orders, with a dry run first."),
        "outbox": ("outbox:app", "The record of everything said: publish it again after Kafka has lost it."),
    },
    "Prepare it": {
        "migrate": ("topics:migrate", "Make databases and bring their tables up to date."),
        "topics": ("topics:app", "The topics: list them, make those that are missing."),
        "keys": ("topics:keys", "Make the keys that are missing."),
    },
    "Play with it": {
        "token": ("token:token", "Issue a token for an institution, an authority, a bank, an operator."),
        "clock": ("clock:app", "The one clock of a demo or test stack: show it, move it on."),
        "bank": ("bank:app", "The stand-in bank: tell it what to do wrong, read its statement."),
    },
}
"""Group → command → (module of this package and what in it, one line of help)."""


def build() -> App:
    """The whole command line."""
    app = App(
        name="yike",
        help=HELP,
        help_format="markdown",
        version="0.1.0",
        console=console,
        error_console=error_console,
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        help_on_error=False,
        suppress_keyboard_interrupt=False,
    )
    for place, (title, commands) in enumerate(COMMANDS.items(), start=1):
        group = Group(title, sort_key=place)
        for name, (where, words) in commands.items():
            app.command(f"ops.cli.{where}", name=name, group=group, help=words)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status; errors are told, never thrown at the operator."""
    if arguments is None:
        # A server that is away is told in our words, once; the client's own logging would come before them.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    try:
        status = build()(given)
    except CycloptsError as error:
        return _fail(str(error), "yike --help, or --help behind any command.", WRONG_CALL, as_json=as_json)
    except CommandError as error:
        return _fail(error.what, error.hint, error.status, as_json=as_json)
    except StackError as error:
        return _fail(str(error), "", NO_STACK, as_json=as_json)
    except KeyboardInterrupt:
        return INTERRUPTED
    return status if isinstance(status, int) else 0


def _fail(what: str, hint: str, status: int, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": what, "hint": hint, "status": status}, ensure_ascii=False), file=sys.stderr)
    else:
        error_console.print(f"[red]{escape(what)}[/red]")
        if hint:
            error_console.print(f"[dim]{escape(hint)}[/dim]")
    return status
