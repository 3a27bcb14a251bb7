//! The table of transitions, by cases and by any order of events.
