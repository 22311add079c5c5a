"""All stages of the recipe as steps with inputs and outputs, on one command."""
