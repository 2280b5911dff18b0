"""What a person sees of a run: metrics, the console's row, samples, plots, other trackers."""
