"""Commands that call a running service.

calls         the client of a command; one call, and what is shown of it
explaining    explain
fleet         pods, pods forget, pods resync
health        whether the service is ready
measures      what the service measures of itself, from its metrics
prompts       prompts as flags and files give them
recording     writes arriving frames to a file
scoring       score
tokenizing    tokenize
top           a live picture of the fleet
versions      version
watching      every change of a pod
"""
