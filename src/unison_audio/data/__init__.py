"""Corpora as training clips; start with `records`.

On its way to a batch a clip goes through these files:

1. `shards`: the index of a corpus; a shard gives each clip as bytes, a `Sample`.
2. `records`: the bytes become a `ClipRecord` and a waveform, together a `Clip`.
3. `stream`: the clips of large corpora in random order, endlessly; small ones fit into memory.
4. `stream_pools` and `pools`: clips drawn by kind, from windows on streams or from memory, for the
   builders in `tasks`, which make `TaskBatch`es of them.
"""
