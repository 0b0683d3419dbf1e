"""``streamware serve``: the stand-alone app, its page for people, its metrics and its command line.

A host like any other: it translates requests into calls of the Archiver and decides nothing about archives.
"""
