//! pgbench through the proxy: transactions of an UPDATE and an INSERT, and the same without a block.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{Deployment, TENANTS};
use crate::support::{shared_nodes, temp_folder};

/// How pgbench sends statements.
#[derive(Debug, Clone, Copy)]
pub enum Mode {
    Simple,
    Prepared,
}

/// A pgbench at work. Killed when dropped.
pub struct Pgbench {
    child: Child,
    what: String,
}

impl Pgbench {
    /// Starts it for some seconds; its clients write as writers 1000 · `number` and on.
    pub async fn start(deployment: &Deployment, mode: Mode, number: u32, seconds: u32) -> Self {
        let scripts = scripts();
        let program = shared_nodes(1).await[0].binaries().program("pgbench");
        let mode = format!("{mode:?}").to_lowercase();
        let mut command = Command::new(program);
        command.args(["-n", "-h", "127.0.0.1", "-U", "postgres", "-c", "3", "-j", "1"]);
        command.args(["-p", &deployment.port.to_string(), "-T", &seconds.to_string(), "-M", &mode]);
        // Not as fast as it can: two processors have to do all of it.
        command.args(["-R", "150", "-D", "n=0", "-D", &format!("first={}", number * 1_000)]);
        for script in scripts {
            command.arg("-f").arg(script);
        }
        command.arg(&deployment.database.name);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.kill_on_drop(true).spawn().unwrap();
        Self { child, what: format!("pgbench -M {mode}") }
    }

    /// Whether it still works.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end, which must be without an error; the transactions that were acknowledged.
    pub async fn finish(self) -> i64 {
        let output = timeout(Duration::from_mins(1), self.child.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("{} does not end", self.what)).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {text}{errors}", self.what);
        assert_eq!(number(&text, "number of failed transactions: "), 0, "{}: {text}", self.what);
        number(&text, "number of transactions actually processed: ")
    }
}

fn number(text: &str, label: &str) -> i64 {
    let rest = text.split(label).nth(1).unwrap_or_else(|| panic!("no {label:?} in {text}"));
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().unwrap()
}

fn scripts() -> [PathBuf; 2] {
    let folder = temp_folder("pgbench");
    let set =
        format!("\\set tenant random(1, {TENANTS})\n\\set n :n + 1\n\\set w :first + :client_id\n");
    let write = "UPDATE accounts SET version = version + 1 WHERE tenant_id = :tenant;\n\
         INSERT INTO entries (tenant_id, writer, n) VALUES (:tenant, :w, :n);\n";
    let texts = [format!("{set}BEGIN;\n{write}END;\n"), format!("{set}{write}")];
    let names = ["block.sql", "single.sql"].map(|name| folder.join(name));
    for (name, text) in names.iter().zip(texts) {
        std::fs::write(name, text).unwrap();
    }
    names
}
