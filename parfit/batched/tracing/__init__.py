"""From the caller's Python function to a program: what it is handed, and how its NumPy becomes JAX.

    feeds.py     the datasets as arrays with a leading axis, and back to what one of them looks like
    standins/    what the function is handed while it is traced: rows, tables, groups that behave as pandas' do
    traced.py    the function of the free parameters and one dataset's arrays
    recorded.py  what it did with them, so that equal functions share programs
    purity.py    what cannot be compiled: prints, random numbers, changes of what lies outside
                 ── touched.py: what its code does to things that are not its own
    jaxify.py    calls of NumPy and `math` as JAX's ── modules.py, mathematics.py: which ── reach.py: whose code
    deadline.py  a limit to how long that takes
    untraceable.py  why it cannot be done

Nothing here knows of solvers.
"""
