"""Layers of the configuration: flags override the environment, which overrides one file.

client         what clients read, without the models of the other sections: in milliseconds
environment    the variables, and those that nothing reads
faults         what is wrong with a configuration
loading        reads the layers, merges and validates them, and remembers where a value comes from
settings       every setting there is: its name, its flag, its help
"""
