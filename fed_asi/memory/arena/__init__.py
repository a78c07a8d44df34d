"""The least memory that holds every tensor of a step by its lifetime: traced, planned, and proved by running in it.

trace.py says what a step did, recorder.py takes it down as it runs, step.py runs a training step or an inference for
it; lifetimes.py and offsets.py place what was alive; planned.py is what a user calls, and address.py by what it
remembers plans; replay.py does the step again in one buffer of that size, and proof.py compares.
"""
