"""Whether a run fits a machine that is not here: every stage's program, compiled for it and weighed."""
