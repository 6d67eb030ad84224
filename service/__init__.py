"""gRPC in, scores out: the service around the index, the events and the tokenizers.

cli            the command line
config         what can be configured, and loading it
application    the composition root: builds everything, starts and stops it in order
rpc            gRPC calls: requests in, answers out
replication    the share of this replica in an index that several replicas keep
diagnostics    what looks misconfigured
snapshot       the index in a file, across restarts
metrics        Prometheus metrics
logs           the format of the log
"""
