"""How actors get time: on asyncio, on trio, or on the thread that called.

The core is written once, as coroutines that wait only through a dispatcher. On a loop
they suspend; on a thread the dispatcher's waits block instead, so that a coroutine
driven with a single ``send(None)`` runs to its end.
"""
