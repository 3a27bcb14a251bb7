//! A move as a value: its states, the table of transitions, and what each state does next.
