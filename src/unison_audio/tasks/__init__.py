"""The tasks: table, templates, instructions, synthesis of batches; start with `table`."""
