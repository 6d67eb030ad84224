"""kvatlas as tests run it.

In path order:

    running             in this process, with channels to it
    asking              asks a service in the same words by calls and within a stream
    echo                a listener alone, with methods for tests of transports
    one_pod             in this process, with one pod whose frames a test writes by hand
    explained           what ExplainService says of them
    otlp                a collector of spans, which may misbehave
    process             `kvatlas serve` as a process
    built_image         the image that `make image` built, run without an engine
    published           `kvatlas serve` as a process, to which one pod has published
    replicated_fleet    several replicas over one store, and the engines that they listen to
    scraped             the metrics of services that have seen something of everything
    replica_process     a replica as a process that can be killed, paused and started again
"""
