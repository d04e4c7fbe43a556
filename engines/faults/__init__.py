"""The fault lab: MAX's encoder with a fault in it, beside the same encoder without.

Faults live outside the engines' own road. A fault is up to four changes, each at a place where the
road can be entered from outside: the record of weights before they are laid out (weights are the
graphs' inputs, so nothing is compiled anew), the log-mel window that the encoder is given, the
outputs of the stages as they come, and whisper's loop over windows. `lab.FaultyEngine` is a
subclass of `MaxHybridEngine` that applies them; the engines themselves know nothing of it.
"""
