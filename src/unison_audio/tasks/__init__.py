"""The tasks: table, templates, instructions and the online synthesis of batches; start with `table`."""
