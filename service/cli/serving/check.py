"""`kvatlas check`: what `serve` would refuse or ignore, without starting the service."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from service.assembly import make_tokenizers
from service.cli.serving.settings import loaded
from service.config import ignored_variables
from service.discovery import DiscoveryError
from service.discovery.dns import addresses_of
from service.discovery.file import read_pods
from service.engines import (
    EngineAnswerError,
    EngineHttp,
    Expectations,
    ask_engine,
    sources_of,
)
from service.processes import PrivateStoreError, store_program
from service.terminal import complain, printable
from tokenization import TokenizationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.cli.flags.command import Options
    from service.config import Configuration


def check(options: Options) -> int:
    """Say what is wrong with a configuration. Returns the exit status."""
    configured = loaded(options)
    if configured is None:
        return 2
    configuration = configured.settings
    broken = [
        *ignored_variables(),
        *asyncio.run(_broken_models(configuration)),
        *_broken_processes(configuration),
    ]
    for fault in broken:
        complain(fault)
    if broken:
        return 2
    sources = configuration.sources
    print(
        f"kvatlas: the configuration is valid: {len(sources)} source(s) of events, block size "
        f"{configuration.index.block_size}, gRPC on {', '.join(configuration.grpc.listen)}"
    )
    for ignored in [*_ignored(configuration), *asyncio.run(_ask_pods(configuration))]:
        complain(ignored)
    return 0


def _broken_processes(configuration: Configuration) -> Iterator[str]:
    if configuration.processes > 1 and not configuration.store.url:
        try:
            store_program()
        except PrivateStoreError as error:
            yield f"processes: {error}"


async def _broken_models(configuration: Configuration) -> list[str]:
    """Load every tokenizer and template that the service would load at its start."""
    faults = []
    async with make_tokenizers(configuration) as tokenizers:
        for model in configuration.models:
            if model.tokenizer is not None:
                try:
                    await tokenizers.load(model.name)
                except TokenizationError as error:
                    faults.append(f"model {model.name!r}: {error}")
    return faults


async def _ask_pods(configuration: Configuration) -> list[str]:
    """Ask the pods that are configured what they are, and print it; returns what is wrong."""
    section, notes = configuration.discovery, []
    http = EngineHttp(section.timeout_seconds, section.token_file, section.ca_file)
    is_bound = any(source.bind for source in configuration.sources)
    expected = Expectations(configuration.block_size_of, is_bound)
    for url in section.pods:
        try:
            facts = await ask_engine(http, url)
            addresses = await addresses_of(urlsplit(url).hostname or "")
        except (EngineAnswerError, OSError) as error:
            notes.append(f"{url} cannot be asked now: {error}")
            continue
        found = sources_of(url, facts, addresses, expected)
        ranks = ", ".join(rank.endpoint for rank in found.ranks) or "nowhere"
        print(
            printable(
                f"{url}: {facts.engine} {facts.version} serves {', '.join(facts.models)}; blocks "
                f"of {facts.block_size or '?'} tokens; publishes at {ranks}"
            )
        )
        notes += [f"{url}: {finding.kind}: {finding.detail}" for finding in found.findings]
    await http.close()
    return notes


def _undiscoverable(configuration: Configuration) -> Iterator[str]:
    """What keeps pods from being discovered here and now, if not where it will be served."""
    section = configuration.discovery
    if section.file is not None:
        try:
            read_pods(section.file)
        except (OSError, ValueError) as error:
            yield f"discovery.file lists no pods now: {section.file}: {error}"
    if section.kubernetes.is_enabled:
        from service.discovery.kubernetes import KubernetesDiscovery  # takes a while

        try:
            KubernetesDiscovery(section.kubernetes, configuration.events.pods)
        except DiscoveryError as error:
            yield f"here `kvatlas serve` cannot start: {error}"


def _ignored(configuration: Configuration) -> list[str]:
    """What is configured in vain, or perhaps not meant so."""
    notes = list(_undiscoverable(configuration))
    if not (configuration.sources or configuration.discovery.is_enabled):
        notes.append("without a source of events no pod is ever known")
    if not configuration.store.url and configuration.store.model_fields_set - {"url"}:
        notes.append("[store] is ignored: store.url is not set")
    if configuration.snapshot.path is None and configuration.snapshot.model_fields_set - {"path"}:
        notes.append("[snapshot] is ignored: snapshot.path is not set")
    if not (configuration.admin.is_local or configuration.admin.knows_its_clients):
        notes.append("admin.listen is reached by strangers: set admin.token_file or client_ca_file")
    for name, section in (("grpc", configuration.grpc), ("admin", configuration.admin)):
        if section.token_file and not section.certificate_file and not section.is_local:
            notes.append(f"{name}.token_file without TLS: tokens can be read on the way")
    return notes
