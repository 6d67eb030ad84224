"""The command line: `kvatlas serve`, `score`, `pods` and more.

entry         where the command begins
main          the `kvatlas` command: serve, check, resolve-tokenizer, demo
parsers       flags and help of the commands that call a running service
connection    where the service is, and with which credentials
client        score, tokenize, pods, health: one call each
recordings    record, replay: frames to a file, and back
signals       the first one stops the service, the second one ends it at once
render        answers as tables and text
demo          simulated pods, a short workload, and its scores
"""
