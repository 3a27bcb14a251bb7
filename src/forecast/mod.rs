//! History → a distribution of the future, with its measured error.
