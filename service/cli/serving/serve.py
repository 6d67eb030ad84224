"""`kvatlas serve`: runs the service until a signal ends it, in one process or in several."""

from __future__ import annotations

import faulthandler
from typing import TYPE_CHECKING

import structlog

from service.cli.serving.settings import loaded
from service.config import ignored_variables
from service.logs import configure_logs

if TYPE_CHECKING:
    from service.cli.flags.command import Options

_log = structlog.get_logger("kvatlas.service")


def serve(options: Options) -> int:
    """Run the service until a signal ends it. Returns the exit status."""
    if options.process is not None:  # one of several: the supervisor has read the configuration
        from service.cli.serving.running import run_process

        faulthandler.enable()  # one that is stuck is aborted, and says where it was
        return run_process(options.process)
    configured = loaded(options)
    if configured is None:
        return 2
    configuration = configured.settings
    configure_logs(configuration.log)
    for ignored in ignored_variables():
        _log.warning("variable_ignored", detail=ignored)
    if not (configuration.sources or configuration.discovery.is_enabled):
        _log.warning("no_sources", detail="no source of events is configured")
    if configuration.processes > 1:
        from service.cli.serving.supervising import supervise  # it needs no gRPC, ...

        return supervise(configuration)
    from service.cli.serving.running import run  # ... which takes long to import

    return run(configuration)
