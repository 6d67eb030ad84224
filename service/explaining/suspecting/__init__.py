"""The usual suspects: other forms of a prompt, of which pods hold more.

In path order:

    suspects     forms of the prompt, tried against the index
    variants     what these forms are
    near_misses  what single ranks nearly hold
"""

from __future__ import annotations

from service.explaining.suspecting.near_misses import near_misses, stores_with_other_items
from service.explaining.suspecting.suspects import Suspect, Suspects
from service.explaining.suspecting.variants import Seen

__all__ = ["Seen", "Suspect", "Suspects", "near_misses", "stores_with_other_items"]
