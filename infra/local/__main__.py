"""The local stack's commands: python -m infra.local up | env | token | ps | send | demo."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from infra.local import state
from infra.local.state import AlreadyRunning, NotRunning

DEFAULT_PRODUCTS = 1000

SEND_HELP = """Sends one CloudEvent to its function and prints the response.

EVENT.json is a CloudEvent in structured mode (https://cloudevents.io), for example:

  {"specversion": "1.0", "id": "1", "type": "google.cloud.storage.object.v1.finalized",
   "source": "//storage.googleapis.com/projects/_/buckets/imports-and-exports",
   "subject": "objects/imports/…", "data": {"bucket": "…", "name": "imports/…", "generation": "1"}}

The event's type decides which function gets it. A storage event goes to the storage function. A
google.cloud.pubsub.topic.v1.messagePublished goes to the function of the topic that its source ends with
(//pubsub.googleapis.com/projects/local/topics/TOPIC)."""


def main() -> int:
    """Runs one command and returns its exit status."""
    options = build_parser().parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `ps | head -1` is not an error
    try:
        status: int = options.run(options)
    except (NotRunning, AlreadyRunning) as error:
        print(error, file=sys.stderr)
        return 1
    return status


def build_parser() -> argparse.ArgumentParser:
    """Describes the command line."""
    commands = argparse.ArgumentParser(
        prog="python -m infra.local", description="Runs the whole platform on this machine."
    )
    sub = commands.add_subparsers(required=True, metavar="COMMAND")

    command = sub.add_parser("up", help="start everything and run until Ctrl-C")
    command.add_argument(
        "--products",
        type=int,
        default=DEFAULT_PRODUCTS,
        metavar="N",
        help="number of products to seed in the first webshop (default: %(default)s)",
    )
    command.add_argument(
        "--parent",
        type=int,
        metavar="PID",
        help="stop when this process ends, which must have started the command (Linux only)",
    )
    command.set_defaults(run=up)

    command = sub.add_parser(
        "env", help="print addresses and tenants as KEY=value; exit with 1 while the stack is not ready"
    )
    command.set_defaults(run=env)

    command = sub.add_parser("token", help="print a bearer token that is valid for a day")
    command.add_argument("--user", metavar="UUID", help="the token's user (default: the user of the first webshop)")
    command.set_defaults(run=token)

    command = sub.add_parser("ps", help="print the name and the pid of every process")
    command.set_defaults(run=ps)

    command = sub.add_parser(
        "send",
        help="send one CloudEvent to its function",
        description=SEND_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("event", type=Path, metavar="EVENT.json")
    command.set_defaults(run=send)

    command = sub.add_parser(
        "demo", help="run imports, exports and the email of a buy order once, check the results and exit"
    )
    command.set_defaults(run=demo)
    return commands


def up(options: argparse.Namespace) -> int:
    """Runs the stack until a signal. Returns the exit status: 1 when the stack does not start."""
    from infra.local.stack import Stack
    from infra.local.supervisor import StartFailed, die_with_parent

    own = state.find_state()
    with own.locked():
        own.prepare()
        stack = Stack(own, options.products)
        started_at = time.monotonic()
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        try:
            raise_on_signals(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if options.parent:
                die_with_parent(signal.SIGTERM)
                if os.getppid() != options.parent:  # the parent died before the line above
                    return 0
            print("Starting …", flush=True)
            stack.up()
            print(format_summary(own, time.monotonic() - started_at), flush=True)
            stack.watch()
        except StartFailed as failure:
            print(f"The stack did not start.\n{failure}", file=sys.stderr)
            return 1
        except SignalReceived:
            return 0
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            stack.down()


class SignalReceived(BaseException):
    """A signal asked the command to stop. It is not an Exception, so that only the command itself catches it."""

    def __init__(self, number: int) -> None:
        """Keeps the signal's number."""
        self.number = number


def raise_on_signals(*numbers: int) -> None:
    """Makes each of these signals raise SignalReceived, wherever the command is."""

    def handle(number: int, _frame: Any) -> None:
        raise SignalReceived(number)

    for number in numbers:
        signal.signal(number, handle)


def format_summary(own: state.State, seconds: float) -> str:
    """Formats the addresses of what runs, and the next commands to try."""
    stack = own.load()
    environment = stack["environment"]
    names = [function["name"] for function in stack["functions"]]
    others = [name for name in stack["processes"] if name not in names]
    return "\n".join(
        [
            f"Ready after {seconds:.1f} s.",
            "",
            f"  API         {environment['API_URL']}",
            f"  databases   {environment['SERVICE_DATABASE_URL']}  (…/product, …/legacy)",
            f"  storage     {environment['STORAGE_EMULATOR_HOST']}  bucket {environment['BUCKET']}",
            f"  Kafka       {environment['KAFKA_BOOTSTRAP_SERVERS']}",
            f"  Pub/Sub     {environment['PUBSUB_EMULATOR_HOST']}",
            f"  emails      {environment['MAIL_DIR']}",
            f"  logs        {own.path('logs')}",
            f"  functions   {', '.join(names)}",
            f"  and         {', '.join(others)}",
            "",
            "In another terminal:",
            f'  curl -H "Authorization: Bearer $(python -m infra.local token)" '
            f"{environment['API_URL']}/webshops/{environment['WEBSHOP_UUID']}/imports",
            "  python -m infra.local env | ps | demo",
            "",
            "Ctrl-C stops everything.",
        ]
    )


def env(_options: argparse.Namespace) -> int:
    """Prints the addresses and tenants. Raises NotRunning while a process is not ready."""
    own = state.find_state()
    stack = own.load()
    for name in stack["processes"]:
        if own.announced(name) is None:
            raise NotRunning(f"{name} is not ready.")
    for name, value in stack["environment"].items():
        print(f"{name}={value}")
    return 0


def token(options: argparse.Namespace) -> int:
    """Prints a token."""
    from infra.local import identity

    own = state.find_state()
    environment = own.load()["environment"]
    key = identity.signing_key(own.directory)
    print(identity.token(key, environment["API_URL"], options.user or environment["USER_UUID"]))
    return 0


def ps(_options: argparse.Namespace) -> int:
    """Prints the processes that are ready."""
    own = state.find_state()
    for name in own.load()["processes"]:
        if process := own.announced(name):
            print(name, process["pid"])
    return 0


def send(options: argparse.Namespace) -> int:
    """Sends an event. Returns the exit status: 0 when the function accepted the event."""
    from infra.local import cloud_events

    functions = state.find_state().load()["functions"]
    event = json.loads(options.event.read_text())
    url = cloud_events.find_destination(event, functions)
    if url is None:
        print(
            f"No function accepts an event of type {event.get('type')!r} from {event.get('source')!r}.", file=sys.stderr
        )
        return 1
    status, body = cloud_events.post(url, {"Content-Type": cloud_events.STRUCTURED}, json.dumps(event).encode())
    print(status, body.decode(errors="replace"))
    return 0 if 200 <= status < 300 else 1


def demo(_options: argparse.Namespace) -> int:
    """Runs the demo. The stack that the demo starts ends with it, however it ends."""
    from infra.local import demo as demonstration
    from infra.local.supervisor import die_with_parent

    try:
        raise_on_signals(signal.SIGTERM, signal.SIGHUP)
        die_with_parent(signal.SIGTERM)  # when make or the shell ends, there is no reader
        return demonstration.run()
    except SignalReceived as received:
        return 128 + received.number


if __name__ == "__main__":
    sys.exit(main())
