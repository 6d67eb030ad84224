"""What can be typed: the commands, their flags and their help. Nothing slow is imported here.

command       commands as click has them, which import what runs them when they run
completion    completes commands in a shell
connection    where the service is, and with which credentials
fleet         pods, top, health, version
frames        record, replay
prompts       score, explain, tokenize
service       serve, check, config show, demo, resolve-tokenizer
settings      a flag for each setting
values        numbers within their bounds, texts that are UTF-8
"""
