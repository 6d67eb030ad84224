"""Commands that run a service, or prepare it.

check        what `serve` would refuse or ignore
demo         simulated pods, a short workload, and its scores
feeding      simulated pods that publish to a running service
replaying    publishes the frames of a recording
resolving    writes a tokenizer as its engine runs it
running      one process, until a signal ends it
serve        runs the service, in one process or in several
settings     the configuration from the command line; shows it
supervising  several processes, until a signal ends them
signals      the first one stops what runs, the second one ends it at once
"""
