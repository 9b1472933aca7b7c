"""Encoded images -> normalised batches: decoders with one contract, and the choice among them.

`contract` says what a decoder takes and gives, `choice` which one runs, `plain` and `dali` are the two.
"""
