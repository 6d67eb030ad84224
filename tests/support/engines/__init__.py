"""What publishes KV events in tests.

In path order:

    publisher    a socket that sends the frames it is given, as one pod
    wire         single events as engines put them on the wire
    simulated    a naive engine that knows what it caches
    workload     generated prompts, and engines that have served them
    faulty       a simulated engine behind sockets that lose, repeat, damage and die
    model_server  an engine with the HTTP API that says what it is
    pods_file     a file that lists model servers
    recorded     traces of real engines
"""
