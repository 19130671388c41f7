"""The examination of a model on a few examples, before and after it is attacked.

`examine` makes all checks within a budget of passes; each check is a module of its own, which
returns what it looked at, what it measured, and the flags that it raises.  A check abstains if it
can't decide.
"""
