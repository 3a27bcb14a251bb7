//! Load of each shard and node: counters, samples, history.
