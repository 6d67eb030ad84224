"""Which pods there are, who says so, and keeping each of them.

pods          what those who discover pods tell of them
static        pods that the configuration names
dns           pods behind a name
file          pods that a file lists
registered    pods that are registered
fleet         the pods that anybody tells of
keeper        keeps one: asks its engine, and listens to its events
states        what is known of one
served_names  the names by which engines serve their models
metrics       Prometheus metrics
kubernetes    pods of a cluster: listed once, then watched; imported only where it is configured
"""

from service.discovery.dns import DnsPods
from service.discovery.file import FilePods
from service.discovery.fleet import DiscoveredFleet
from service.discovery.metrics import DiscoveryCollector, KubernetesCollector
from service.discovery.pods import DiscoveredPod, Discovery, DiscoveryError
from service.discovery.registered import MemoryRegistry, RegisteredPods, Registry, TooManyPodsError
from service.discovery.states import PodState
from service.discovery.static import StaticPods

__all__ = [
    "DiscoveredFleet",
    "DiscoveredPod",
    "Discovery",
    "DiscoveryCollector",
    "DiscoveryError",
    "DnsPods",
    "FilePods",
    "KubernetesCollector",
    "MemoryRegistry",
    "PodState",
    "RegisteredPods",
    "Registry",
    "StaticPods",
    "TooManyPodsError",
]
