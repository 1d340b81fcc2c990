"""What the tasks are: the table, their online synthesis, the sampler and the instructions."""
