"""Octets and what they say, without any connection.

In path order:

    frame_reader    octets -> frames
    frames          frames -> octets, and their numbers
    header_blocks   HPACK
    malformed       what makes the headers of a request malformed
"""
