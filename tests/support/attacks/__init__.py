"""What strangers send: each attack is one kind of input, of which one message once did harm.

In path order:

    events  frames of a publisher
"""
