"""What the tasks are made from: corpora, shards and pools of clips."""
