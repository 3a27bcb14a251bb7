//! (Statement, Route) → what is sent where; all rewriting of SQL.
