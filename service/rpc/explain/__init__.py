"""ExplainService: scores and blocks, explained.

In path order:

    servicer     the methods of the service
    prompt       what became of a prompt
    read_fields  which fields of a request's body were looked at
    unused       what of a request had no effect
    answer       an explanation -> its message
    ranks        one rank -> its message
    blocks       single blocks -> their messages
"""

from __future__ import annotations

from service.rpc.explain.servicer import ExplainRoom, ExplainServicer, ExplainSources

__all__ = ["ExplainRoom", "ExplainServicer", "ExplainSources"]
