"""gRPC in, scores out: the service around the index, the events and the tokenizers.

In path order:

    cli            the command line
    config         what can be configured, and loading it
    application    the composition root: builds everything, starts and stops it in order
    assembly       makes the parts that application wires from the configuration
    servers        the two gRPC servers, and which services they have
    processes      several processes that serve as one
    accepting      where a listener's connections come from
    listening      gRPC servers: addresses, credentials, connections, start and stop
    rpc            gRPC calls: requests in, answers out
    routing        where requests were sent, and what came of it
    explaining     why a prompt has the scores that it has, without protobuf
    kernel         answers, encoded
    watching       the states of ranks as they change
    discovery      which pods there are, and who says so
    engines        asks engines what they are
    replication    this process among the replicas that share its index
    diagnostics    what looks misconfigured
    snapshot       the index in a file, across restarts
    records        the records of that file
    metrics        Prometheus metrics
    tracing        traces of calls, if they are configured
    heap           gives freed memory back to the system
    loops          background loops, which are restarted when they die
    terminal       text that does not control the terminal
    logs           the format of the log
"""
