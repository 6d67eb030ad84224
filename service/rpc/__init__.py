"""TODO map."""

from __future__ import annotations

from service.rpc.fleet import FleetServicer
from service.rpc.handlers import add_service
from service.rpc.llmd import LlmdTokenizationServicer
from service.rpc.prompts import PromptReader
from service.rpc.reflection import enable_reflection
from service.rpc.scoring import ScoringServicer
from service.rpc.tokenization import TokenizationServicer

__all__ = [
    "FleetServicer",
    "LlmdTokenizationServicer",
    "PromptReader",
    "ScoringServicer",
    "TokenizationServicer",
    "add_service",
    "enable_reflection",
]
