"""Templates that requests bring, rendered in processes that can be killed.

In path order:

    pool     starts the processes, asks them, and replaces those that fail
    child    the program of a process: limits itself, then renders chats as JSON lines ask it to
"""

from __future__ import annotations

from tokenization.processes.pool import ProcessLimits, RenderProcesses

__all__ = ["ProcessLimits", "RenderProcesses"]
