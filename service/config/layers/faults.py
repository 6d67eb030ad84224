"""What is wrong with a configuration."""

from __future__ import annotations


class ConfigurationError(Exception):
    """A configuration that cannot be used.

    Attributes:
        faults: everything that is wrong with it, one line for each fault.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults
