"""Side by side with what a user would pick instead: a folder for each question, run as `python -m benchmarks.FOLDER`.

`report`, `drawing` and `libraries` are what several of them need.
"""
