"""The exit-path contract: every way a run can end, as a table that is run for real.

Read `table` first: it says what has to be seen. `ways` is how runs are brought to their
ends, `cases` in which places and through which entries. `performance` runs one case
from its caller's end, on a `stage`, with a `conductor` for what is done to the run and
a `watch` on its engine. What comes of it is an `observation`; `invariants` are the
rules that hold for every run.

``python -m tests.exit_contract`` prints the README's table, ``--write`` puts it there,
``--omitted`` lists the cases that are left out, and why.
"""
