"""Benchmarks: what the addon costs, each figure as a ratio to its baseline, measured in turns.

The machine is never quiet, so that times by themselves say little. Both sides of a comparison
are alive at the same time and take turns (A B B A ...), and what counts is the ratio within a
turn: the median of those, with the quartiles. Load comes from curl; the servers are nginx.
"""
