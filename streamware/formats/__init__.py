"""Archive formats: what bytes stand where, and under which names. Pure: no I/O, no clock."""
