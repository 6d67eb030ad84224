"""Why a prompt has the scores that it has, in words and numbers; no protobuf.

In path order:

    explainer   the scores of a prompt, pod by pod
    asked       the prompt, and the making of its keys in slices
    held        which single blocks each worker holds
    rank        where one rank's prefix ends, and why in one word
    reasons     the same in sentences
    overview    all of it in one or two sentences
    touches     the last events that touched a block
    reuse       why an engine reuses less than is matched
    suspecting  other forms of the prompt, tried against the index
    lookup      what is known of single blocks
    words       numbers and names in sentences
"""

from __future__ import annotations

from service.explaining.asked import AskedPrompt
from service.explaining.explainer import ExplainedPod, Explainer, Explanation
from service.explaining.lookup import BlockLookups, FoundBlock
from service.explaining.overview import overview, pod_overview
from service.explaining.rank import ExplainedRank
from service.explaining.suspecting import Suspect
from service.explaining.touches import Touch

__all__ = [
    "AskedPrompt",
    "BlockLookups",
    "ExplainedPod",
    "ExplainedRank",
    "Explainer",
    "Explanation",
    "FoundBlock",
    "Suspect",
    "Touch",
    "overview",
    "pod_overview",
]
