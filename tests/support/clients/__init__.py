"""Clients, and servers that treat them badly.

either         both clients behind one face, which tests await
flaky_server   a server that refuses calls so many times, and counts them
http2_peer     a client that writes frames by hand
"""
