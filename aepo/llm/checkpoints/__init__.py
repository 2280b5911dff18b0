"""What a run can go on from: saving, finding, other numbers of ranks, and a checkpoint as a model of transformers."""
