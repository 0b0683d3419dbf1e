"""The ``streamware`` command.

The rule of this file: a mistake of the operator's is one clear line on stderr and exit code 2; nothing listens before
everything was checked.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from streamware.server.settings import Settings, about, parse_address, parse_seconds, parse_size
from streamware.server.state import NO_STATE, open_state
from streamware.server.storage import NO_STORE, open_storage
from streamware.server.tokens import Tokens

_missing: str | None = None
try:
    from streamware.server.run import listen, run
    from streamware.server.workers import supervise
except ModuleNotFoundError as error:  # the command is installed with the core, what it serves with is an extra
    if error.name not in ("uvicorn", "prometheus_client"):
        raise
    _missing = error.name

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; ``argv`` None takes the process's own arguments. Returns the exit code.

    :raises SystemExit: with code 2 on a mistake in the arguments, with 0 after ``--help`` and ``--version``.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    if _missing is not None:
        print(f"streamware serve needs {_missing}: pip install 'streamware[serve]'", file=sys.stderr)
        return 2
    try:
        settings = Settings(
            root=args.root,
            address=parse_address(args.bind),
            allow=tuple(args.allow),
            allow_networks=tuple(args.allow_network),
            workers=args.workers,
            grace_seconds=args.grace,
            access_log=args.access_log,
            tokens=_tokens(args.token),
            allow_delete=args.allow_delete,
            max_upload=_parsed("--max-upload", parse_size, args.max_upload),
            keep_seconds=_parsed("--keep", parse_seconds, args.keep),
        )
        ledger, link_key, files = open_state(args.state, args.link_key, _warn)
        storage = open_storage(args.store, args.state, ledger, _warn)
        settings = replace(
            settings,
            ledger=ledger,
            link_key=link_key,
            hidden=(*files, *storage.files, *([args.token] if args.token else [])),
            store=storage.url,
            rows=storage.rows,
            no_uploads=storage.why,
        )
        listener = listen(settings.address)
    except (OSError, ValueError) as error:
        print(f"streamware serve: {error}", file=sys.stderr)
        return 2
    return run(settings, listener) if settings.workers == 1 else supervise(settings, listener)


def _tokens(path: str | None) -> Tokens | None:
    try:
        return None if path is None else Tokens.read(path)
    except ValueError as error:
        raise ValueError(f"--token {path!r}: {error}") from error


def _parsed(option: str, parse: Callable[[str], int], text: str | None) -> int | None:
    try:
        return None if text is None else parse(text)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from error


def _warn(text: str) -> None:
    print(f"streamware serve: warning: {text}", file=sys.stderr)


class _Version(argparse.Action):
    """Tells it in one line, however long that is; argparse's own would break it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(about())
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="streamware", description="Many files as one streamed, measured, resumable ZIP or TAR download."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="tell the version, and what computes with it")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve a directory and take uploads: pages to pick files on, and archives of what was picked",
        description="Serve a directory: a page at / to pick files on, the files at /tree/, archives at /bundle; and "
        "take uploads at /files, of any size, to be resumed when they break off.",
        epilog="Without --token there is no access control: whoever can connect can read everything below ROOT and "
        "all uploads, and can upload.",
    )
    serve.add_argument("root", nargs="?", default=".", metavar="ROOT", help="directory to serve (default: this one)")
    serve.add_argument(
        "--bind",
        default="127.0.0.1:8080",
        metavar="HOST:PORT",
        help="where to listen; port 0 picks a free one (default: %(default)s)",
    )
    serve.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="URL_PREFIX",
        help="let manifests name files of other servers below this URL; may be given several times (default: none)",
    )
    serve.add_argument(
        "--allow-network",
        action="append",
        default=[],
        metavar="CIDR",
        help="let names in --allow lead to this network, such as 10.0.0.0/8, besides public addresses and what they "
        "name themselves; may be given several times (default: none)",
    )
    serve.add_argument(
        "--state",
        metavar="URL",
        help=f"database for what is learned of files and for saved links, such as sqlite:////srv/state.sqlite3 or "
        f"postgresql+psycopg://user@host/name; {NO_STATE} keeps nothing (default: a file in your state directory)",
    )
    serve.add_argument(
        "--link-key",
        metavar="FILE",
        help="file with the key that signs links, alike for all replicas (default: one in your state directory)",
    )
    serve.add_argument(
        "--store",
        metavar="URL",
        help=f"where uploads are kept: file:///DIRECTORY, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or "
        f"az://CONTAINER/PREFIX, with keys and endpoint from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT and so "
        f"on); {NO_STORE} takes no uploads (default: a folder in your state directory, beside the database)",
    )
    serve.add_argument(
        "--token",
        metavar="FILE",
        help="file of tokens, one a line as TOKEN or NAME TOKEN, one of which all requests but /healthz need then: "
        "as Authorization: Bearer TOKEN, or as password in a browser (default: everybody who can connect is let in)",
    )
    serve.add_argument("--allow-delete", action="store_true", help="let stored files be deleted")
    serve.add_argument("--max-upload", metavar="SIZE", help="largest file that is taken, such as 20G (default: 1T)")
    serve.add_argument(
        "--keep", metavar="TIME", help="how long stored files are kept, such as 30d (default: until they are deleted)"
    )
    serve.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes to serve with (default: %(default)s)"
    )
    serve.add_argument(
        "--grace",
        type=int,
        default=30,
        metavar="SECONDS",
        help="how long running downloads may go on after Ctrl-C or SIGTERM (default: %(default)s)",
    )
    serve.add_argument("--access-log", action="store_true", help="write one line per request to stderr")
    return parser
