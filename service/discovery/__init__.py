"""Which pods there are, and who says so.

pods          what those who discover pods tell of them
kubernetes    pods of a cluster: listed once, then watched; imported only where it is configured
"""

from service.discovery.pods import DiscoveredPod, Discovery

__all__ = ["DiscoveredPod", "Discovery"]
