"""Pods of a Kubernetes cluster: listed once, then watched.

An API server that fails takes no pod away: what is known stays in force until a complete list, or
an event of a watch, says otherwise. Imported only where Kubernetes is configured: httpx2 takes
time.

In path order:

    discovery         tells of the pods of all namespaces together
    reflector         keeps one namespace's copy: lists, watches, resumes, backs off
    client            the two calls of the API server, bounded in time and size
    access            where the API server is, and who kvatlas is to it
    kubeconfig        the same, from the file that kubectl uses
    lines             cuts what a watch sends into lines
    collection        the copy: objects and the pods that they stand for
    pods              what an object of kind Pod says
    endpoint_slices   what an object of kind EndpointSlice says
    labels            what labels and annotations say; addresses
    status            how recent the copy is, and what went wrong
    failures          what can go wrong, by reason
"""

from service.discovery.kubernetes.client import ApiLimits
from service.discovery.kubernetes.discovery import KubernetesDiscovery
from service.discovery.kubernetes.kubeconfig import AccessError
from service.discovery.kubernetes.reflector import Pace
from service.discovery.kubernetes.status import KubernetesStatus

__all__ = ["AccessError", "ApiLimits", "KubernetesDiscovery", "KubernetesStatus", "Pace"]
