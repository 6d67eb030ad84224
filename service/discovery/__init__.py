"""Which pods there are, and who says so.

pods    what those who discover pods tell of them
"""

from service.discovery.pods import DiscoveredPod, Discovery

__all__ = ["DiscoveredPod", "Discovery"]
