"""The bank as pure functions: no I/O, no clock, no chance, no framework.

Start with `decider` (what a service is), `saga` (the facts that services tell each other), then
`account`.
"""
