"""Tokenizers and chat templates.

In path order:

    fetched    real ones, fetched from package registries
    hub        a hub on this host that a model can be downloaded from
    trained    a small one, trained on the spot
    mutated    loads mutations of it, in a program of its own
"""
