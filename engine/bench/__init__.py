"""What runs cost: the cases, the peers, the plot and the gate of ``engine bench``.

Nothing else in the library imports this package.
"""
