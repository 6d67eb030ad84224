"""`kvatlas explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.cli.calling.calls import ask
from service.cli.calling.prompts import score_request

if TYPE_CHECKING:
    from service.cli.flags.command import Options
    from service.cli.screen.tables import Part


def explain(options: Options) -> int:
    """Say why a prompt has the scores that it has. Returns the exit status."""
    return ask(options, lambda client: client.explain(score_request(options)), _shown)


def _shown(answer: Any) -> list[Part]:
    from service.cli.screen.explanations import explanation  # rich is not needed for JSON

    return explanation(answer)
