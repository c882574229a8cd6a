"""Stages and services on a Ray cluster.

`cluster` connects to one, or starts a private one; `hosting` is an actor as the kernel sees it, with the same
messages that go to a worker process; `actor` is its other side; `services` has services as actors. Ray itself places
the actors, moves what they say, and tells when one has died.
"""
