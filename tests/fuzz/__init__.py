"""Fuzzing: what may be fed with anything, and what it promises all the same.

    ./scripts/fuzz                      lists the targets
    ./scripts/fuzz completion 60        fuzzes one of them for 60 seconds

A target is a function of bytes. It raises where a promise is broken, and for nothing else. The
same function is driven by atheris (guided by coverage) and by hypothesis; see `engines`.
"""
