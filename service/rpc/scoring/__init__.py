"""ScoringService: prompts -> scores of pods, whether one comes with a call, several, or a stream.

servicer  the methods of the service
scorer    one prompt -> an encoded answer
    options   what a request asks for besides its prompt, checked
    budget    the time after which it wants its answer in any case
stream    the requests and answers of one stream
    errors    why one of several prompts could not be scored
"""

from __future__ import annotations

from service.rpc.scoring.budget import LatencyBudget
from service.rpc.scoring.options import ScoreOptions, TierWeights
from service.rpc.scoring.scorer import ModelWeights, ScoredPrompt, Scorer
from service.rpc.scoring.servicer import ScoringServicer

__all__ = [
    "LatencyBudget",
    "ModelWeights",
    "ScoreOptions",
    "ScoredPrompt",
    "Scorer",
    "ScoringServicer",
    "TierWeights",
]
