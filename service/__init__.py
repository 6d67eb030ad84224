"""gRPC in, scores out.

In path order: `cli` the command line, `configuration` what is asked for, `application` the
composition root, `calls` what all calls share, `scoring`, `tokenizing` and `fleet` the
servicers, `prompts` a request's prompt -> token ids, `errors` faults -> statuses, `metrics`,
`reflection`, `logs`; `client` and `tables` the commands that ask a running service; `demo`.
"""
