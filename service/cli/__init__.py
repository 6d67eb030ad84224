"""The command line: `kvatlas serve`, `score`, `pods` and more.

entry         where the command begins
interruption  what SIGINT and SIGTERM do to a command
main          the `kvatlas` command and its exit status
flags         what can be typed: commands, flags, help, completion
serving       commands that run a service, or prepare it
calling       commands that call a running service
connection    where that service is, and with which credentials
screen        what the commands show

A command is declared in `flags`, which imports click alone; what runs it is imported when it runs.
"""
