"""The local stack: everything the functions need, on one machine, with nothing but `pip install`.

`python -m infra.local up` starts it; `stack.py` says what runs and in which order.
"""
