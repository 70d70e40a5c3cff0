"""``flask chsk …``: serve, see what happens, send events.

``flask`` imports this module for each of its commands, as it imports all that is registered under
``flask.commands``, so the module imports little.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from datetime import datetime
from itertools import chain
from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup, ScriptInfo, pass_script_info
from flask.helpers import get_debug_flag

from . import packers
from .errors import ChskError, UnpackError
from .figures import together
from .inspector import Inspector
from .printable import masked, printable
from .publisher import Publisher

commands = AppGroup("chsk", help="Channel sockets.")

FILE = click.Path(exists=True, dir_okay=False, resolve_path=True)


@commands.command("serve", with_appcontext=False)
@click.option("--host", "-h", default="127.0.0.1", help="The address to listen on.")
@click.option("--port", "-p", default=5000, help="The port to listen on.")
@click.option("--cert", "certfile", type=FILE, help="A certificate: serve HTTPS.")
@click.option("--key", "keyfile", type=FILE, help="Its key, unless the certificate's file has it.")
@click.option(
    "--reload/--no-reload",
    "use_reloader",
    default=None,
    help="Start again when a file changes. On with --debug.",
)
@click.option(
    "--debugger/--no-debugger",
    "use_debugger",
    default=None,
    help="Show errors in the browser. On with --debug.",
)
@click.option("--access-log/--no-access-log", default=True, help="Print a line for each request.")
@click.option("--trace", is_flag=True, help="Print each event, reply, open and close, too.")
@click.option(
    "--graceful-timeout",
    default=30.0,
    help="Seconds that requests have to end after SIGTERM or Ctrl-C.",
)
@pass_script_info
def serve(
    info: ScriptInfo, /, use_reloader: bool | None, use_debugger: bool | None, **options: Any
) -> None:
    """Serve the application with gevent's WSGI server, in one process.

    At SIGTERM and Ctrl-C clients are told to come back (1012), and requests have time to end.
    """
    from .serving import Options, is_patched, patched_again, serve

    if not is_patched():
        # Before anything is imported: other extensions' commands are, by now.
        command = patched_again()
        os.execv(command[0], command)
    debug = get_debug_flag()
    wanted = Options(
        use_reloader=debug if use_reloader is None else use_reloader,
        use_debugger=debug if use_debugger is None else use_debugger,
        **options,
    )
    try:
        serve(info.load_app, wanted)
    except ChskError as error:
        raise click.ClickException(str(error)) from error


@commands.command("config")
def show_config() -> None:
    """Print every setting of this application, but no password."""
    config = current_app.extensions["chsk"].config
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name == "broker_url":
            value = masked(value)
        click.echo(f"CHSK_{field.name.upper()} = {value!r}")


@commands.command("send")
@click.argument("uid")
@click.argument("event")
@click.option("--client-id", help="Only to this client of UID.")
def send(uid: str, event: str, client_id: str | None) -> None:
    """Push EVENT, EDN or JSON, to every client of UID: flask chsk send ann '[:order/shipped 7]'.

    It prints the event's offset. All commands but serve and config need CHSK_BROKER_URL=redis://…,
    by which they reach the workers.
    """
    with _publisher() as publisher:
        offset = publisher.send(uid, _read(event), client_id=client_id)
        if offset is None:
            raise click.ClickException(f"{printable(uid)} is not connected: nothing was sent")
        click.echo(offset)


@commands.command("broadcast")
@click.argument("event")
def broadcast(event: str) -> None:
    """Push EVENT to every connected client, and print its offset."""
    with _publisher() as publisher:
        click.echo(publisher.broadcast(_read(event)))


@commands.command("publish")
@click.argument("topic")
@click.argument("event")
def publish(topic: str, event: str) -> None:
    """Push EVENT to every client of every member of TOPIC, and print its offset."""
    with _publisher() as publisher:
        click.echo(publisher.publish(topic, _read(event)))


@commands.command("close")
@click.argument("uid")
@click.option("--client-id", help="Only this client of UID.")
@click.option("--sign-out", is_flag=True, help="They stay closed: the user has signed out.")
def close(uid: str, client_id: str | None, sign_out: bool) -> None:
    """Close the connections of UID. The clients come back, unless they are signed out."""
    with _publisher() as publisher:
        publisher.close(uid, client_id, reconnect=not sign_out)


@commands.command("uids")
def uids() -> None:
    """List the users who are connected, and over which transports."""
    with _inspector() as inspector:
        connected = inspector.uids()
    for uid in sorted(connected.any):
        kinds = [name for name in ("ws", "ajax") if uid in getattr(connected, name)]
        click.echo(f"{printable(uid)}  {' '.join(kinds)}")


@commands.command("clients")
@click.argument("uid", required=False)
def clients(uid: str | None) -> None:
    """List the clients of UID, or the anonymous ones, with their workers.

    The columns are: worker, client id, what carries its messages, packer, and the number of
    messages that wait for it.
    """
    with _inspector() as inspector:
        found = inspector.ask("clients", uid)
    for worker, some in _answered(found):
        for one in some:
            words = (one["client_id"], one["state"], one["packer"], one["waiting"])
            click.echo("  ".join(printable(str(word)) for word in (worker, *words)))


@commands.command("topics")
def topics() -> None:
    """List the topics of users who are connected, and how many such members each has."""
    with _inspector() as inspector:
        found = inspector.ask("topics")
    for topic, count in sorted(_sum(found).items()):
        click.echo(f"{printable(topic)}  {count}")


@commands.command("stats")
@click.option("--all-workers", is_flag=True, help="Print those of each worker, not their sums.")
def stats(all_workers: bool) -> None:
    """Print the counters and gauges of the workers, as chsk.stats() has them."""
    with _inspector() as inspector:
        found = inspector.ask("stats")
    if not all_workers:
        return _print_counts(together(stats for _, stats in _answered(found)))
    for worker, counts in _answered(found):
        click.echo(f"worker {worker}")
        _print_counts(counts, "  ")


@commands.command("tail")
@click.option("--uid", help="Only what concerns this user.")
@click.option("--topic", help="Only events that are published to this topic.")
@click.option("--id", "event", help="Only events with this id, and their replies.")
@click.option("--payload", is_flag=True, help="Show the data of events and replies, too.")
def tail(**wanted: Any) -> None:
    """Show what happens at all workers, until Ctrl-C.

    in and out are events from and to clients. reply is the answer to one. open and gone: a client
    came, or was forgotten. lost: its WebSocket ended, and it may come back. close: the server
    closed it. refused: a request was answered with an error.
    """
    with suppress(KeyboardInterrupt), _inspector() as inspector:
        for line in inspector.tail(**wanted):
            if isinstance(line, str):
                click.echo(f"* {line}", err=True)
                continue
            at = datetime.fromtimestamp(line.at).strftime("%H:%M:%S.%f")[:-3]
            payload = "" if line.payload is None else f"  {line.payload}"
            click.echo(f"{at} {line.worker[:4]} {line.text}{payload}")


@commands.command("doctor")
@click.argument("url", required=False)
def doctor(url: str | None) -> None:
    """Look for what is wrong with the settings, the broker, and the way to the site at URL.

    flask chsk doctor https://example.org asks the channel socket there as a browser would, over
    both transports. The status is 1 where an error was found.
    """
    from .doctor import examine, probe

    if url is not None and not url.startswith(("http://", "https://")):
        raise click.BadParameter("it begins with http:// or https://", param_hint="URL")
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    verdicts = examine(app)
    if url is not None:
        secure = bool(app.config["SESSION_COOKIE_SECURE"])
        verdicts = chain(verdicts, probe(url, app.extensions["chsk"].config, secure))
    worst = 0
    for level, text in verdicts:
        click.echo(f"{level:5} {text}")
        worst = max(worst, level == "error")
    sys.exit(worst)


@contextmanager
def _publisher() -> Iterator[Publisher]:
    """A publisher by the broker of the application; its errors are those of the command."""
    config = current_app.extensions["chsk"].config
    most = config.max_outbox_bytes // 2
    with _click_errors(), Publisher(config.broker_url, max_bytes=most) as publisher:
        yield publisher


@contextmanager
def _inspector() -> Iterator[Inspector]:
    """The same for what shows."""
    url = current_app.extensions["chsk"].config.broker_url
    with _click_errors(), Inspector(url) as inspector:
        yield inspector


@contextmanager
def _click_errors() -> Iterator[None]:
    try:
        yield
    except ChskError as error:
        raise click.ClickException(printable(str(error))) from error


def _answered(found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The workers that answered, with their answers; the others are named."""
    if not found:
        click.echo("no worker serves", err=True)
    for worker, answer in found.items():
        if answer is None:
            click.echo(f"worker {worker} did not answer", err=True)
        else:
            yield worker, answer


def _sum(found: dict[str, Any]) -> Counter[str]:
    total: Counter[str] = Counter()
    for _, counts in _answered(found):
        total.update(counts)
    return total


def _print_counts(counts: dict[str, int], indent: str = "") -> None:
    for name, count in sorted(counts.items()):
        click.echo(f"{indent}{name} = {count}")


def _read(text: str) -> Any:
    try:
        return packers.make("json", max_values=None).unpack(text)
    except UnpackError:
        pass
    try:
        return packers.make("edn", max_values=None).unpack(text)
    except UnpackError as error:
        raise click.BadParameter(f"not EDN: {printable(str(error))}", param_hint="EVENT") from error
