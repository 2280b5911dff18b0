"""What a run needs, before it starts: versions, devices, memory in each phase, and two steps with a shrunk model."""
