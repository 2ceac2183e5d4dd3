"""Modules by name: what may change the deepest maps of a host model, such as APM and ACPA.

`contract` says what a module is, `chain` holds several with their parameters, `known` finds them by name.
"""
