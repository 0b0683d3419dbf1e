"""The benchmark: streamware beside what one would use instead, within one run. docs/performance.md has the method.

    tox -e bench                        all of it; the table and the chart go into docs/
    tox -e bench -- --smoke             what a change is checked with, in a minute or two
    python -m bench --cases up/small --contenders streamware-wsgi,zipstream-ng-wsgi

It is never part of the tests' verdict. The rule of this folder: ``contenders`` and ``cases`` are tables, ``rounds``
measures, ``results`` computes, ``report`` writes; no other file does any of these.
"""
