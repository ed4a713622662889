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

SEND_HELP = """Sends one CloudEvent to its function and prints the answer.

EVENT.json is a CloudEvent in structured mode (https://cloudevents.io), for example:

  {"specversion": "1.0", "id": "1", "type": "google.cloud.storage.object.v1.finalized",
   "source": "//storage.googleapis.com/projects/_/buckets/imports-and-exports",
   "subject": "objects/imports/…", "data": {"bucket": "…", "name": "imports/…", "generation": "1"}}

The function is found by the event's type: a storage event goes to the storage function, a
google.cloud.pubsub.topic.v1.messagePublished to the function of the topic that its source ends with
(//pubsub.googleapis.com/projects/local/topics/TOPIC)."""


def main() -> int:
    """Runs one command and returns its exit status."""
    options = parser().parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `ps | head -1` is no error
    try:
        status: int = options.run(options)
    except (NotRunning, AlreadyRunning) as error:
        print(error, file=sys.stderr)
        return 1
    return status


def parser() -> argparse.ArgumentParser:
    """The command line."""
    commands = argparse.ArgumentParser(prog="python -m infra.local", description="The whole platform on one machine.")
    sub = commands.add_subparsers(required=True, metavar="COMMAND")

    command = sub.add_parser("up", help="start everything and run until Ctrl-C")
    command.add_argument(
        "--products",
        type=int,
        default=DEFAULT_PRODUCTS,
        metavar="N",
        help="products to seed in the first webshop (default: %(default)s)",
    )
    command.add_argument(
        "--parent",
        type=int,
        metavar="PID",
        help="stop when this process, which has started the command, is gone (Linux)",
    )
    command.set_defaults(run=up)

    command = sub.add_parser("env", help="print addresses and tenants as KEY=value; exit 1 while not ready")
    command.set_defaults(run=env)

    command = sub.add_parser("token", help="print a bearer token, valid for a day")
    command.add_argument("--user", metavar="UUID", help="whom it is for (default: the first webshop's user)")
    command.set_defaults(run=token)

    command = sub.add_parser("ps", help="print name and pid of every process")
    command.set_defaults(run=ps)

    command = sub.add_parser(
        "send",
        help="send one CloudEvent to its function",
        description=SEND_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("event", type=Path, metavar="EVENT.json")
    command.set_defaults(run=send)

    command = sub.add_parser("demo", help="run the whole story once and exit")
    command.set_defaults(run=demo)
    return commands


def up(options: argparse.Namespace) -> int:
    """Starts the stack and stays until a signal. 1 when it does not come up."""
    from infra.local.stack import Stack
    from infra.local.supervisor import StartFailed, die_with_parent

    where = state.here()
    with where.locked():
        where.prepare()
        stack = Stack(where, options.products)
        started = time.monotonic()
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        try:
            leave_at(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if options.parent:
                die_with_parent(signal.SIGTERM)
                if os.getppid() != options.parent:  # it died before it could be waited for
                    return 0
            print("Starting …", flush=True)
            stack.up()
            print(summary(where, time.monotonic() - started), flush=True)
            stack.watch()
        except StartFailed as failure:
            print(f"The stack did not come up.\n{failure}", file=sys.stderr)
            return 1
        except Leave:
            return 0
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            stack.down()


class Leave(BaseException):
    """A signal asked to stop: not an error, and only the command itself may catch it."""

    def __init__(self, number: int) -> None:
        """The signal's number."""
        self.number = number


def leave_at(*numbers: int) -> None:
    """Ends the command from wherever it is, by Leave, when one of these signals comes."""

    def leave(number: int, _frame: Any) -> None:
        raise Leave(number)

    for number in numbers:
        signal.signal(number, leave)


def summary(where: state.State, seconds: float) -> str:
    """What runs, and what to do with it."""
    stack = where.load()
    told = stack["environment"]
    names = [function["name"] for function in stack["functions"]]
    others = [name for name in stack["processes"] if name not in names]
    return "\n".join(
        [
            f"Ready after {seconds:.1f} s.",
            "",
            f"  API         {told['API_URL']}",
            f"  databases   {told['SERVICE_DATABASE_URL']}  (…/product, …/legacy)",
            f"  storage     {told['STORAGE_EMULATOR_HOST']}  bucket {told['BUCKET']}",
            f"  Kafka       {told['KAFKA_BOOTSTRAP_SERVERS']}",
            f"  Pub/Sub     {told['PUBSUB_EMULATOR_HOST']}",
            f"  mails       {told['MAIL_DIR']}",
            f"  logs        {where.path('logs')}",
            f"  functions   {', '.join(names)}",
            f"  and         {', '.join(others)}",
            "",
            "In another terminal:",
            f'  curl -H "Authorization: Bearer $(python -m infra.local token)" '
            f"{told['API_URL']}/webshops/{told['WEBSHOP_UUID']}/imports",
            "  python -m infra.local env | ps | demo",
            "",
            "Ctrl-C stops everything.",
        ]
    )


def env(_options: argparse.Namespace) -> int:
    """Prints the addresses. Raises NotRunning while a process is missing."""
    where = state.here()
    stack = where.load()
    for name in stack["processes"]:
        if where.announced(name) is None:
            raise NotRunning(f"{name} is not ready.")
    for name, value in stack["environment"].items():
        print(f"{name}={value}")
    return 0


def token(options: argparse.Namespace) -> int:
    """Prints a token."""
    from infra.local import identity

    where = state.here()
    told = where.load()["environment"]
    key = identity.signing_key(where.directory)
    print(identity.token(key, told["API_URL"], options.user or told["USER_UUID"]))
    return 0


def ps(_options: argparse.Namespace) -> int:
    """Prints the processes that serve now."""
    where = state.here()
    for name in where.load()["processes"]:
        if process := where.announced(name):
            print(name, process["pid"])
    return 0


def send(options: argparse.Namespace) -> int:
    """Sends an event: 0 when its function took it."""
    from infra.local import cloud_events

    functions = state.here().load()["functions"]
    event = json.loads(options.event.read_text())
    url = cloud_events.destination(event, functions)
    if url is None:
        print(
            f"No function takes an event of type {event.get('type')!r} from {event.get('source')!r}.", file=sys.stderr
        )
        return 1
    status, answer = cloud_events.post(url, {"Content-Type": cloud_events.STRUCTURED}, json.dumps(event).encode())
    print(status, answer.decode(errors="replace"))
    return 0 if 200 <= status < 300 else 1


def demo(_options: argparse.Namespace) -> int:
    """Runs the demo. However it ends, its stack ends with it."""
    from infra.local import demo as story
    from infra.local.supervisor import die_with_parent

    try:
        leave_at(signal.SIGTERM, signal.SIGHUP)
        die_with_parent(signal.SIGTERM)  # make, or a shell: nobody is left to read the story
        return story.run()
    except Leave as signaled:
        return 128 + signaled.number


if __name__ == "__main__":
    sys.exit(main())
