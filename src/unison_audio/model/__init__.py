"""What is trained: the backbone and the flow it follows."""
