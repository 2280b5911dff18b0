"""What a task is to a model before any training, and what that means for the method."""
