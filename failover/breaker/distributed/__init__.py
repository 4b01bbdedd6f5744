"""One circuit in many processes.

All circuits with the same name and store act as one. `record` is what is stored, `merge` translates between it and a
circuit's own record, `synchronizer` keeps a circuit and its stored record in step, and `worker` is the thread that does
all I/O with one store.
"""
