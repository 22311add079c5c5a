"""What a model's final answer is, and whether it is right."""
