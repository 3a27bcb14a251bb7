//! (Statement, parameters, &ShardMap) → which shards a statement needs, or why it is refused.
