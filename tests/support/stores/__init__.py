"""Stores that replicas share.

In path order:

    certificates  an authority, and a certificate of it
    servers       Redis and Valkey servers and clusters, on free ports
    mutations     values that no replica writes
    proxy         a connection to a server that a test can cut
    replicated    two replicas of an index over one store, without events
"""
