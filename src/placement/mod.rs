//! (Map, forecast, policy) → what to move, why, at what cost and for what benefit.
