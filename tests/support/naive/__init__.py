"""Models that say what is right, too simple to be wrong.

In path order:

    reuse    blocks of a prompt that an engine reuses, by kind of attention
    index    an index of dictionaries, walked block by block
"""
