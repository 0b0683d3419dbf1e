"""What the contenders' servers run: one small app each, as a user of that library would write it.

The rule of this folder: every app answers ``/archive.zip`` and ``/tiny.zip`` with the members that ``given`` reads, all
listed when the process starts, and does nothing that its library's documentation does not show.
"""
