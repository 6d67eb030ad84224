"""The command line: `kvatlas serve`, `score`, `pods` and more.

entry         where the command begins
main          the `kvatlas` command: serve, check, resolve-tokenizer, demo
check         what `serve` would refuse or ignore
arguments     numbers on the command line, within their bounds
parsers       flags and help of the commands that call a running service
connection    where that service is, and with which credentials
client        score, tokenize, pods, health: one call each
recordings    record, replay: frames to a file, and back
render        answers as tables and text
signals       the first one stops the service, the second one ends it at once
demo          simulated pods, a short workload, and its scores
"""
