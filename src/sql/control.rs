//! Statements about the session or its transaction: read from their first words, never by the
//! grammar.

/// What a statement does to the session or its transaction. Only for a text of one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Nothing: an ordinary statement.
    None,
    /// `BEGIN`, `START TRANSACTION`, with any modes: send the text as it is.
    Begin,
    /// `COMMIT`, `END`; `chain` with `AND CHAIN`.
    Commit {
        /// A transaction with the same modes begins at once.
        chain: bool,
    },
    /// `ROLLBACK`, `ABORT`; `chain` with `AND CHAIN`.
    Rollback {
        /// A transaction with the same modes begins at once.
        chain: bool,
    },
    /// `SAVEPOINT name`: on every node that the transaction has joined, or joins later.
    Savepoint {
        /// Folded.
        name: String,
    },
    /// `RELEASE [SAVEPOINT] name`
    Release {
        /// Folded.
        name: String,
    },
    /// `ROLLBACK TO [SAVEPOINT] name`
    RollbackTo {
        /// Folded.
        name: String,
    },
    /// `SET TRANSACTION …` or `SET CONSTRAINTS …`: holds for the current transaction, on each of its
    /// nodes.
    SetTransaction {
        /// The statement, to replay on a node that joins the transaction later.
        text: String,
    },
    /// `SET [SESSION | LOCAL] name = …`, also `SET TIME ZONE`, `SET NAMES`, `SET ROLE`,
    /// `SET SESSION AUTHORIZATION` and `SET SESSION CHARACTERISTICS` under the names `timezone`,
    /// `client_encoding`, `role`, `session_authorization` and `session characteristics`.
    Set {
        /// Lower case.
        name: String,
        /// Until the end of the transaction only.
        local: bool,
        /// The values, identifiers folded and strings without their quotes; `None` for `DEFAULT`.
        values: Option<Vec<String>>,
        /// The statement, to replay on other server connections.
        text: String,
    },
    /// `RESET name`, or all for `None`.
    Reset {
        /// Lower case, as for [`Control::Set`].
        name: Option<String>,
    },
    /// `SHOW name`, also `SHOW ALL`.
    Show {
        /// Lower case, as for [`Control::Set`].
        name: String,
    },
    /// `DISCARD …`
    Discard(Discard),
    /// `LISTEN channel`
    Listen {
        /// Folded.
        channel: String,
    },
    /// `UNLISTEN channel`, or all for `None`.
    Unlisten {
        /// Folded.
        channel: Option<String>,
    },
}

/// What `DISCARD` throws away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    /// `ALL`
    All,
    /// `PLANS`
    Plans,
    /// `TEMP`, `TEMPORARY`
    Temp,
    /// `SEQUENCES`
    Sequences,
}
