"""The local stack: everything that the functions need, on one machine, installed by pip alone.

`python -m infra.local up` starts it. `stack.py` defines what runs, and in which order.
"""
