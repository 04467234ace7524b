"""Where a body runs: on a loop, or in a thread."""
