"""ExplainService: scores and blocks, explained.

In path order:

    servicer     the methods of the service
    room         how many explanations are under way at once
    prompt       what became of a prompt
    read_fields  which fields of a request's body were looked at
    unknown      requested pods that are not known
    unused       what of a request had no effect
    answer       an explanation -> its message
    ranks        one rank -> its message
    blocks       single blocks -> their messages
"""

from __future__ import annotations

from service.rpc.explain.room import ExplainRoom
from service.rpc.explain.servicer import ExplainServicer, ExplainSources

__all__ = ["ExplainRoom", "ExplainServicer", "ExplainSources"]
