"""Random families of runs: whatever becomes of them, the promise holds for each.

A program, of `programs`, says what some runs at the top do, their children among it,
and what is done to all of them from outside; the `author` writes them at random.
A `performance` brings one to its end, with `bodies` that do as they are told. What is
noted of it, in `notes`, is what anybody can see: transitions, handles, calls of hooks,
and how the bodies ended. From nothing else do the `rules` say what is wrong.
"""
