"""One circuit in many processes.

All circuits of one name and one store are one circuit. `record` is what is written down, `merge` translates between it
and a circuit's own record, `synchronizer` keeps one circuit and its stored record in step, and `worker` is the thread
that does all I/O with one store.
"""
