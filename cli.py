"""`carillon`: what people type."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import typer
from pydantic import SecretStr, ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from automations_command import automations, loaded
from contacts_command import contacts
from database.embedded import CannotStart, default_data_dir
from rehearse_command import rehearse
from settings import Settings, settings
from telemetry import logs

# What only some commands need is imported by them, so that the others answer at once.
if TYPE_CHECKING:
    from temporalio.client import Client

    from backups import Tell
    from database.reconciliation import Held
    from local_stack import Stack

T = TypeVar("T")
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(contacts, name="contacts")
app.add_typer(automations, name="automations")
app.command()(rehearse)
Host = Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")]
DataDir = Annotated[Path | None, typer.Option(help="Where everything is kept. [default: .carillon]")]
SHOWN_BEFORE = "shown at the first start; lost? Start with CARILLON_API_KEY=<your own>, which adds an owner key"


@app.command()
def up(
    data_dir: DataDir = None,
    api_port: Port = 8000,
    temporal_port: Port = 7233,
    temporal_ui_port: Port = 8233,
    workers: Annotated[int, typer.Option(min=0, help="How many worker processes.")] = 2,
) -> None:
    """Start PostgreSQL, Temporal, workers and the API, and keep them running until Ctrl-C."""
    from local_stack import Stack

    configure_logging(settings(), quiet=True)
    loaded()  # what is wrong with the files of automations is told here, and not by every program in its log
    stack = Stack(
        settings(),
        _data_dir(data_dir),
        api_port=api_port,
        temporal_port=temporal_port,
        temporal_ui_port=temporal_ui_port,
        workers=workers,
    )
    unshown = stack.data_dir / "first_api_key"
    new_key: list[str] = []

    async def prepared(complete: Settings) -> "Client":
        client, key = await prepare(complete, unshown)
        new_key.extend([key] if key else [])
        return client

    def show() -> None:
        Console(soft_wrap=True).print(_overview(stack, *new_key))
        unshown.unlink(missing_ok=True)

    asyncio.run(stack.run(prepared, show))
    _leave(0)


@app.command()
def api(host: Host = "127.0.0.1", port: Port = 8000) -> None:
    """Serve the control API and what recipients touch."""
    from local_stack import ensure_free

    configure_logging(settings())
    ensure_free(port, host)
    _run(_serve(settings(), host, port))


@app.command()
def worker() -> None:
    """Run workflows and activities."""
    configure_logging(settings())
    _run(_work(settings()))


@app.command()
def migrate() -> None:
    """Bring the database and Temporal to what this version needs, and make the first API key."""
    configure_logging(settings(), quiet=True)
    _, key = asyncio.run(prepare(settings()))
    print("The database and Temporal are ready.")
    if key:
        print(f"The first owner's API key, shown only now: {key}")
    elif not settings().api_key:
        print(f"The first owner's API key was {SHOWN_BEFORE}.")
    _leave(0)


@app.command()
def backup(file: Annotated[Path, typer.Argument(help="A new file.")], data_dir: DataDir = None) -> None:
    """Write the record of `carillon up` and its secret key into a file; it may run meanwhile."""
    from backups import back_up

    configure_logging(settings(), quiet=True)
    _refuse_own_database("Back up your own PostgreSQL by its own means")
    _with_progress("Writing", partial(back_up, _data_dir(data_dir), file))
    print(f"{file} has the record and the secret key: keep it where nobody else reads it.")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="What `carillon backup` wrote.")], data_dir: DataDir = None
) -> None:
    """Make a data directory from a backup, and hold what may have been sent since that was made."""
    from backups import restore

    configure_logging(settings(), quiet=True)
    _refuse_own_database("Restore your own PostgreSQL by its own means, then type `carillon reconcile`")
    folder = _data_dir(data_dir)
    done = _with_progress("Reading", partial(restore, file, folder))
    print(f"{folder} has the record as it was at {done.moment:%Y-%m-%d %H:%M:%S} UTC.")
    _tell_held(done.held)
    if not done.with_secret_key:
        print(
            "The backup has no secret key: set CARILLON_SECRET_KEY as it was, or links in messages that left are dead."
        )


@app.command()
def reconcile(
    data_dir: DataDir = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
) -> None:
    """After PostgreSQL was restored by its own means: hold what may have been sent since that moment.

    Pauses every campaign that is open, and makes each of its messages that is due uncertain.
    """
    import backups

    configure_logging(settings(), quiet=True)
    if not yes:
        typer.confirm(
            "Was the record restored from an earlier moment? Nothing due is sent then before you say so", abort=True
        )
    if settings().database_url:
        url = asyncio.run(reach_postgres(settings()))
        _tell_held(asyncio.run(backups.hold(url, backups.EARLIER)))
    else:
        _tell_held(asyncio.run(backups.reconcile(_data_dir(data_dir))))


def _data_dir(given: Path | None) -> Path:
    return given or settings().data_dir or default_data_dir()


def _refuse_own_database(instead: str) -> None:
    if settings().database_url:
        raise CannotStart(f"{instead} (CARILLON_DATABASE_URL is set): see docs/reliability.md")


def _with_progress(title: str, work: "Callable[[Tell], Coroutine[Any, Any, T]]") -> T:
    from rich.progress import DownloadColumn, Progress, TimeElapsedColumn

    columns = (*Progress.get_default_columns()[:2], DownloadColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=None)
        return asyncio.run(work(lambda done, total: progress.update(bar, completed=done, total=total)))


def _tell_held(held: "list[Held]") -> None:
    messages = sum(each.messages for each in held)
    print(
        f"Open campaigns and automations, paused now: {len(held):,}."
        f" Messages that may have left since, uncertain now: {messages:,}."
    )
    print("What to do next: docs/reliability.md, After a restore.")


@app.command()
def sink(
    port: Port = 1025,
    record: Annotated[Path | None, typer.Option(help="A file that gets one line per message.")] = None,
    letters: Annotated[Path | None, typer.Option(help="A folder that gets each message as a file.")] = None,
) -> None:
    """Take every message as an SMTP server, deliver none, and keep count: to try things out."""
    from channels.sink import run_sink
    from local_stack import ensure_free

    ensure_free(port)
    done = run_sink(
        port=port,
        record=record,
        letters=letters,
        listening=lambda sink: print(f"An SMTP server that delivers nothing: {sink.url}. Ctrl-C ends it.", flush=True),
    )
    print(f"{done.count:,} messages, {len(done.duplicates):,} of them a second time")


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end, until Ctrl-C.")] = False,
) -> None:
    """Run a real campaign, from a contact list to the inbox, and check every figure."""
    from examples.demo import play

    configure_logging(settings(), quiet=True)
    sys.exit(play(keep=keep))


async def prepare(complete: Settings, unshown: Path | None = None) -> "tuple[Client, str | None]":
    """Migrate the database, tell Temporal what runs are found by, make the first owner's key.

    Args:
        unshown: a file that keeps a key that is made up until it was shown.

    Returns:
        a client of Temporal, and the key that must be shown.
    """
    from temporalio.service import RPCError, RPCStatusCode

    from database.engine import Database
    from database.keys import ensure_first_owner
    from database.migrate import migrate
    from workflows import search_attributes

    owner_url = complete.migration_database_url
    if owner_url and complete.database_url:
        await _ensure_answers(owner_url, "CARILLON_MIGRATION_DATABASE_URL")
    else:
        owner_url = await reach_postgres(complete)
    client = await reach_temporal(complete)
    await asyncio.to_thread(migrate, owner_url, complete.database_url)
    url = await reach_postgres(complete)
    try:
        await search_attributes.register(client)
    except RPCError as error:
        if error.status not in (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED):
            raise CannotStart(f"Temporal did not take its search attributes: {error.message}") from None
        # Temporal Cloud wants this done on its own pages.
        names = ", ".join(search_attributes.SEARCH_ATTRIBUTES)
        logging.warning("Temporal wants its search attributes (%s: Keyword) registered by hand: %s", names, error)
    database = Database(url, pool_size=1)
    try:
        return client, await ensure_first_owner(database, _revealed(complete.api_key), unshown)
    finally:
        await database.close()


async def reach_postgres(complete: Settings) -> str:
    """The URL of the database, which answers."""
    if not complete.database_url:
        raise CannotStart("Set CARILLON_DATABASE_URL, or type `carillon up`, which brings its own PostgreSQL")
    await _ensure_answers(complete.database_url, "CARILLON_DATABASE_URL")
    return complete.database_url


async def _ensure_answers(url: str, variable: str) -> None:
    import psycopg

    try:
        await (await psycopg.AsyncConnection.connect(url, connect_timeout=5)).close()
    except psycopg.ProgrammingError:  # Its words quote the URL, which may hold a password.
        raise CannotStart(f"{variable} is no URL that PostgreSQL understands") from None
    except psycopg.Error as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise CannotStart(f"PostgreSQL does not answer ({variable}): {reason}") from None


async def reach_temporal(complete: Settings, **watching: Any) -> "Client":
    """A client of the Temporal server, which answers and has the namespace; `watching` is for its connection."""
    from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
    from temporalio.service import RPCError, RPCStatusCode

    from workflows.connection import connect

    address, namespace = complete.temporal_address, complete.temporal_namespace
    if not address:
        raise CannotStart("Set CARILLON_TEMPORAL_ADDRESS, or type `carillon up`, which brings its own Temporal")
    try:
        client = await connect(
            address,
            namespace=namespace,
            api_key=_revealed(complete.temporal_api_key),
            tls=complete.temporal_tls,
            **watching,
        )
    except RuntimeError:
        raise CannotStart(f"Temporal does not answer at {address} (CARILLON_TEMPORAL_ADDRESS)") from None
    try:
        await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=namespace))
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise CannotStart(
                f"There is no Temporal namespace {namespace!r} (CARILLON_TEMPORAL_NAMESPACE): make it with "
                f"`temporal operator namespace create --namespace {namespace}`, or name another"
            ) from None
    return client


def _run(program: Coroutine[Any, Any, None]) -> NoReturn:
    """Run until SIGTERM or SIGINT; then tell what is left of the traces, and end at once."""
    import uvloop

    from telemetry import tracing

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: sys.exit())  # before the program listens; Uvicorn raises it again afterwards
    status = 0
    try:
        uvloop.run(program)
    except SystemExit:
        pass
    except CannotStart:
        raise
    except Exception:
        logging.exception("ended by an error")
        status = 1
    tracing.finish()
    _leave(status)


async def _serve(complete: Settings, host: str, port: int) -> None:
    import uvicorn

    from api.app import create_app
    from database.engine import Database
    from telemetry import sdk, tracing

    url = await reach_postgres(complete)
    interceptors = tracing.configure(complete.otel_exporter_otlp_endpoint, service=complete.otel_service_name)
    client = await reach_temporal(complete, interceptors=interceptors, runtime=sdk.measured_runtime())
    config = uvicorn.Config(
        create_app(
            Database(url, pool_size=complete.database_pool_size),
            client,
            public_url=complete.public_url,
            secret_key=_secret_key(complete),
            metrics_token=_revealed(complete.metrics_token),
            code=loaded(),
        ),
        host=host,
        port=port,
        http="httptools",
        access_log=False,
        log_config=None,
        server_header=False,
        forwarded_allow_ips=complete.trusted_proxies,
        timeout_graceful_shutdown=10,
    )
    await uvicorn.Server(config).serve()


async def _work(complete: Settings) -> None:
    from worker import run_worker

    _secret_key(complete)
    await reach_postgres(complete)
    await reach_temporal(complete)
    await run_worker(complete, loaded())


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def _secret_key(complete: Settings) -> bytes:
    if not complete.secret_key:
        raise CannotStart("Set CARILLON_SECRET_KEY to at least 32 characters, the same for every process")
    return complete.secret_key.get_secret_value().encode()


def _overview(stack: "Stack", new_key: str = "") -> Table:
    complete = stack.settings
    known_key = "the one in CARILLON_API_KEY" if complete.api_key else SHOWN_BEFORE
    relay = urlsplit(complete.smtp_url.get_secret_value())
    table = Table("", "", title="Carillon is up", title_justify="left", show_header=False)
    table.columns[1].overflow = "fold"
    rows = {
        "API": stack.api_url,
        "API docs": f"{stack.api_url}/docs",
        "Temporal UI": stack.temporal_ui_url or f"that of {complete.temporal_address}",
        "Data directory": str(stack.data_dir),
        "API key": new_key or known_key,
        "SMTP": f"{relay.hostname}:{relay.port or 25}",
        "Metrics": "\n".join(stack.metrics_urls.values()),
    }
    for name, value in rows.items():
        table.add_row(name, Text(value))
    kept = "The API key is shown only now: keep it. " if new_key else ""
    table.caption = f"{kept}Ctrl-C ends everything."
    table.caption_justify = "left"
    return table


def configure_logging(complete: Settings, *, quiet: bool = False) -> None:
    """Everything that is said goes to stderr in one form."""
    logs.configure(complete.log_level, complete.log_format, quiet=quiet)


def _leave(status: int) -> NoReturn:
    """End at once. Where Python takes itself down first, a thread of Temporal's core that comes back in that moment
    makes it abort (one `carillon migrate` in twelve on a busy machine) or hang (one worker in two whose Temporal was
    stopped at the same time)."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    """The command; what stands in its way is told in one line."""
    # What a program imports stays: to look for garbage meanwhile was a tenth of its start.
    gc.set_threshold(50_000)
    try:
        app()
    except CannotStart as error:
        print(f"carillon: {error}", file=sys.stderr)
        _leave(1)
    except ValidationError as error:
        if error.title != Settings.__name__:
            raise
        wrong = (f"{Settings.variable(str(problem['loc'][0]))}: {problem['msg']}" for problem in error.errors())
        sys.exit(f"carillon: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
