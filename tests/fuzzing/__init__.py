"""Tests whose input is made up by Hypothesis.

They take a fixed number of examples, always the same ones, so that they fail only after a change.
To search for longer, and elsewhere every time::

    HYPOTHESIS_PROFILE=long pytest tests/fuzzing
"""
