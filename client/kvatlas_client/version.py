"""The version of the client, which the service is told."""

__version__ = "0.1.0"
