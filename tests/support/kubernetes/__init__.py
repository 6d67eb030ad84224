"""An API server that lists and watches Pods and EndpointSlices as Kubernetes does, and fails.

In path order:

    api_server    speaks HTTP: answers lists in pages
    watch_answer  streams the events of a watch
    told          runs a discovery, and takes what it tells
    faults        what it does wrong when it is told to
    cluster       its objects, their resource versions, and their history until it is compacted
    selectors     which labels a selector finds
    objects       Pods and EndpointSlices
"""

from support.kubernetes.api_server import ApiServer
from support.kubernetes.cluster import Cluster
from support.kubernetes.faults import Fault, Faults
from support.kubernetes.objects import endpoint, endpoint_slice, pod
from support.kubernetes.told import Told, discovering

__all__ = [
    "ApiServer",
    "Cluster",
    "Fault",
    "Faults",
    "Told",
    "discovering",
    "endpoint",
    "endpoint_slice",
    "pod",
]
