"""The least memory found that holds every tensor of a step during its lifetime: traced, planned, proved by a run.

trace.py describes what a step did, recorder.py records it as it runs, and step.py runs a training step or an inference
under a recorder. lifetimes.py and offsets.py lay out what was alive. planned.py is the interface for users, and
address.py gives the address under which it caches plans. replay.py runs the step again in one buffer of that size, and
proof.py compares the results.
"""
