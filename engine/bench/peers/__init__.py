"""The same job on others: what each is asked to do, and the process that does it.

The modules ``on_…`` and `runner` run in whatever Python the others are installed in, by
their path, so they import nothing of the engine but for `on_engine` itself.
"""
