"""The `kvatlas` command: reads flags, runs one subcommand, returns the exit status."""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from kvevents import SubscribeError
from service.application import Application
from service.cli.arguments import positive_integer
from service.cli.check import check
from service.cli.parsers import add_clients
from service.cli.signals import StopSignals
from service.config import ConfigurationError, ignored_variables, load
from service.listening import ListenerDiedError, ListenError
from service.logs import configure_logs
from service.records import SnapshotError
from service.terminal import complain, printable
from store import StoreError
from tokenization import ResolveError, TokenizationError, resolve_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.config import Configuration

_log = structlog.get_logger("kvatlas.service")

_COLLECTIONS = (700, 10, 100)  # ten times fewer full ones: each may hold calls up for 10 ms

_SERVE_EPILOG = """\
examples:
  Let pods connect to port 5557 and publish as kv@<pod>@<model> (vLLM: --kv-events-config
  '{"enable_kv_cache_events": true, "publisher": "zmq", "endpoint": "tcp://this-host:5557",
    "topic": "kv@10.0.0.1:8000@my-model"}'):
      kvatlas serve --bind 'tcp://*:5557'
  Connect to two pods:
      kvatlas serve --connect 10.0.0.1:8000=tcp://10.0.0.1:5557 \\
                    --connect 10.0.0.2:8000=tcp://10.0.0.2:5557 --default-model my-model
  Take everything from a file, but listen elsewhere:
      kvatlas serve --config kvatlas.toml --listen 127.0.0.1:0

Flags override the environment (KVATLAS_INDEX__BLOCK_SIZE=32, KVATLAS_SOURCES='[{...}]'), which
overrides the file (--config or KVATLAS_CONFIG). The README describes every setting.
"""


_RESOLVE_EPILOG = """\
example:
  kvatlas resolve-tokenizer /models/Mistral-7B-v0.1 /models/resolved/Mistral-7B-v0.1

Transformers builds some tokenizers anew from their vocabulary, for example those of the Llama 2
family: their tokenizer.json alone gives other ids in some places. Write such a tokenizer with this
command, and configure the directory that it wrote.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    1: it failed; 2: its flags or configuration are wrong; 130: it was interrupted.
    """
    options = parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """The parser. A parsed command has the function that runs it as `run`."""
    top = argparse.ArgumentParser(
        prog="kvatlas",
        description="Says how much of a prompt's prefix each pod already holds in its KV cache.",
        epilog="Start with `kvatlas demo`. Every command has its own --help.",
    )
    top.add_argument("--version", action="version", version=f"kvatlas {version('kvatlas')}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_serve(commands, "serve", "run the service", _serve)
    _add_serve(commands, "check", "validate a configuration without starting the service", _check)
    add_clients(commands)
    resolve = commands.add_parser(
        "resolve-tokenizer",
        help="write a model's tokenizer as its engine runs it (needs transformers)",
        epilog=_RESOLVE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    resolve.add_argument("source", type=Path, help="directory of the model")
    resolve.add_argument("target", type=Path, help="directory to write")
    resolve.set_defaults(run=_resolve)
    demo = commands.add_parser(
        "demo", help="run simulated pods and a short workload, and show its scores"
    )
    demo.add_argument(
        "--pods", type=positive_integer, default=3, help="number of pods (default: %(default)s)"
    )
    demo.add_argument(
        "--turns",
        type=positive_integer,
        default=3,
        help="turns of each chat (default: %(default)s)",
    )
    demo.set_defaults(run=_demo)
    return top


def _add_serve(commands: Any, name: str, summary: str, run: Any) -> None:
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=_SERVE_EPILOG.replace("kvatlas serve", f"kvatlas {name}"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration file (TOML)")
    parser.add_argument(
        "--listen",
        action="append",
        metavar="ADDRESS",
        help="listen here for gRPC: host:port or unix:/path; repeatable",
    )
    parser.add_argument(
        "--admin-listen",
        action="append",
        metavar="ADDRESS",
        help="listen here for `kvatlas pods` and `record` (default: 127.0.0.1:50052); repeatable",
    )
    parser.add_argument(
        "--metrics-listen", metavar="ADDRESS", help="serve metrics at host:port; '' for no metrics"
    )
    _add_events(parser)
    _add_index(parser)
    parser.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error")
    parser.add_argument("--log-format", metavar="FORMAT", help="auto, human or json")
    parser.set_defaults(run=run)


def _add_events(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bind",
        action="append",
        default=[],
        metavar="ENDPOINT",
        help="let pods connect here to publish events; repeatable",
    )
    parser.add_argument(
        "--connect",
        action="append",
        default=[],
        metavar="[POD=]ENDPOINT",
        help="connect here to receive a pod's events; repeatable",
    )
    parser.add_argument(
        "--default-model", metavar="MODEL", help="model of pods whose topic names none"
    )


def _add_index(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--block-size", metavar="TOKENS", help="number of tokens of a block (default: 16)"
    )
    parser.add_argument("--hash-seed", metavar="SEED", help="seed of the block keys")
    parser.add_argument(
        "--index",
        metavar="URL",
        help="share the index through this store: redis://host:port, valkey://... and more",
    )
    parser.add_argument(
        "--index-limit", metavar="SIZE", help="memory that the index may use, such as 2GiB"
    )
    parser.add_argument(
        "--snapshot", metavar="FILE", help="keep the index in this file across restarts"
    )


def _flags(options: argparse.Namespace) -> dict[str, Any]:
    """The flags on the command line, nested as in the configuration file."""
    sources = [{"endpoint": endpoint, "bind": True} for endpoint in options.bind]
    for connect in options.connect:
        pod, separator, endpoint = connect.rpartition("=")
        sources.append({"endpoint": endpoint, **({"pod": pod} if separator else {})})
    flags: dict[str, Any] = {
        "grpc": {"listen": options.listen},
        "admin": {"listen": options.admin_listen},
        "metrics": {"listen": options.metrics_listen},
        "index": {
            "block_size": options.block_size,
            "hash_seed": options.hash_seed,
            "limit": options.index_limit,
        },
        "snapshot": {"path": options.snapshot},
        "store": {"url": options.index},
        "log": {"level": options.log_level, "format": options.log_format},
        "default_model": options.default_model,
        "sources": sources or None,
    }
    return _without_absent(flags)


def _without_absent(values: dict[str, Any]) -> dict[str, Any]:
    inner = {k: _without_absent(v) if isinstance(v, dict) else v for k, v in values.items()}
    return {name: value for name, value in inner.items() if value not in (None, {})}


def _load(options: argparse.Namespace) -> Configuration | None:
    try:
        return load(options.config, _flags(options))
    except ConfigurationError as error:
        complain("the configuration has faults:")
        for fault in [*error.faults, *ignored_variables()]:
            print(f"  {printable(fault)}", file=sys.stderr)
        return None


def _check(options: argparse.Namespace) -> int:
    configuration = _load(options)
    return 2 if configuration is None else check(configuration, ignored_variables())


def _serve(options: argparse.Namespace) -> int:
    configuration = _load(options)
    if configuration is None:
        return 2
    configure_logs(configuration.log)
    for ignored in ignored_variables():
        _log.warning("variable_ignored", detail=ignored)
    try:
        asyncio.run(_serve_until_signalled(configuration))
    except (ListenError, SubscribeError, SnapshotError, StoreError, TokenizationError) as error:
        complain(f"cannot start: {error}")
        return 1
    except ListenerDiedError as error:
        complain(str(error))
        return 1
    return 0


async def _serve_until_signalled(configuration: Configuration) -> None:
    signals = StopSignals()
    try:
        async with Application(configuration) as application:
            signals.started()
            gc.freeze()  # the collector need not look through all that the start has made
            gc.set_threshold(*_COLLECTIONS)
            await _until_told(application, signals)
    except asyncio.CancelledError:
        if signals.first is None:
            raise
        complain("stopped before it was serving")


async def _until_told(application: Application, signals: StopSignals) -> None:
    death = asyncio.create_task(application.until_a_listener_dies(), name="listeners")
    told = asyncio.create_task(signals.wait(), name="signals")
    try:
        await asyncio.wait((death, told), return_when=asyncio.FIRST_COMPLETED)
        if death.done():
            await death
        if signals.first == signal.SIGTERM:  # at a terminal nobody waits for load balancers
            await application.become_lame_duck()
    finally:
        death.cancel()
        told.cancel()


def _demo(options: argparse.Namespace) -> int:
    from service.cli.demo import run  # only this command needs its simulated pods

    return asyncio.run(run(options.pods, options.turns))


def _resolve(options: argparse.Namespace) -> int:
    try:
        resolve_tokenizer(options.source, options.target)
    except ResolveError as error:
        complain(str(error))
        return 1
    print(f"wrote {options.target / 'tokenizer.json'}")
    return 0
