"""What the tests share: engines, services and stores to run, and naive models to compare with.

In path order:

    deadlines     how long a test waits for a condition
    paths         where the repository and the recorded data lie
    ports         free ports, for servers that cannot say which one they were given
    shipped       the one list of packages that are shipped
    crafted       snapshots that somebody has changed
    refusals      what a caller is told of a call that failed
    certificates  certificates that tests make
    processes     a service of several processes, and what becomes of each
    terminal      runs a command on a terminal
    fuzzing       feeds the kernel what nobody means well with; a program of its own
    applied_worker  one worker's applier, index and trust
    given_keys    a prompt of which only the block keys are given
    naive         models that are too simple to be wrong
    engines       what publishes KV events: simulated, faulty and recorded engines
    attacks       what strangers send
    clients       the clients of kvatlas_client, and a naive server
    services      kvatlas itself, in this process or in one of its own
    kubernetes    an API server that lists and watches, and fails
    stores        Redis and Valkey servers, and indexes that share one
    models        tokenizers, fetched or trained
    deployed      what deploy/ ships: rendered manifests, and the folders that they mount
"""
