"""Tokenizers and chat templates.

In path order:

    fetched    real ones, fetched from package registries
    trained    a small one, trained on the spot
    mutated    loads mutations of it, in a program of its own
"""
