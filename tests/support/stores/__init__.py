"""Stores that replicas share.

In path order:

    servers       Redis and Valkey servers and clusters, on free ports
    proxy         a connection to a server that a test can cut
    replicated    two replicas of an index over one store, without events
"""
