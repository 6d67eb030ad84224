"""`kvatlas score`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.cli.calling.calls import ask
from service.cli.calling.prompts import score_request

if TYPE_CHECKING:
    from service.cli.flags.command import Options
    from service.cli.screen.tables import Part


def score(options: Options) -> int:
    """Show how much of a prompt each pod holds. Returns the exit status."""
    return ask(options, lambda client: client.score(score_request(options)), _shown)


def _shown(answer: Any) -> list[Part]:
    from service.cli.screen.answers import scores  # rich is not needed for JSON

    return scores(answer)
