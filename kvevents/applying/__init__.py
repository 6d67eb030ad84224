"""Event -> index writes: what each event of one worker does to the index.

In path order:

    applier        one worker's events, batch by batch
    familiar       events of a form that was decided about before
    pieces         events with many hashes, divided
    event_applier  one event
    index_writer   blocks with and without tokens, and what engine hashes mean
    orphans        blocks that wait for their parents or their meaning
    cache_groups   the KV-cache groups that a worker's events announce
    block_parts    engine blocks longer than a block key's
    roots          how sequences begin, as far as it was seen
    places         medium and group of an event -> tier and group
    other_cache    blocks in another cache than their group's
    event_counts   what happened to the events, by type and reason
"""

from __future__ import annotations

from kvevents.applying.applier import Applier
from kvevents.applying.cache_groups import EngineSettings
from kvevents.applying.event_counts import EventCounts
from kvevents.applying.orphans import Orphans
from kvevents.applying.pieces import PIECE_KEYS, weight_of
from kvevents.applying.roots import SeenRoots

__all__ = [
    "PIECE_KEYS",
    "Applier",
    "EngineSettings",
    "EventCounts",
    "Orphans",
    "SeenRoots",
    "weight_of",
]
