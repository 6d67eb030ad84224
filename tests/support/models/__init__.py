"""Tokenizers and chat templates.

Its files:

    fetched    real ones, fetched from package registries
    trained    a small one, trained on the spot
"""
