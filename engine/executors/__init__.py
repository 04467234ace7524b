"""Where a body runs: on a loop, in a thread, …"""
