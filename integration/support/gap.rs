//! A wire that breaks at a word.

use std::sync::Arc;

use foreshard::runtime::Tasks;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Stands before a node; breaks the next connection that says a word.
pub struct Gap {
    pub port: u16,
    word: Arc<Mutex<Option<&'static str>>>,
    tasks: Tasks,
}

impl Gap {
    /// Before the node at this port.
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gap = Self {
            port: listener.local_addr().unwrap().port(),
            word: Arc::default(),
            tasks: Tasks::new(),
        };
        let (word, tasks) = (Arc::clone(&gap.word), gap.tasks.clone());
        drop(gap.tasks.spawn("gap", async move {
            while let Ok((client, _)) = listener.accept().await {
                let node = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                drop(tasks.spawn("link", link(client, node, Arc::clone(&word))));
            }
        }));
        gap
    }

    /// The next connection that says this breaks.
    pub fn arm(&self, word: &'static str) {
        *self.word.lock() = Some(word);
    }

    /// Whether none has said it yet.
    pub fn is_armed(&self) -> bool {
        self.word.lock().is_some()
    }
}

async fn link(client: TcpStream, node: TcpStream, word: Arc<Mutex<Option<&'static str>>>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_node, mut to_node) = node.into_split();
    let there = async {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let count = from_client.read(&mut bytes).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&bytes[..count]);
            let said = word.lock().take_if(|word| text.contains(*word)).is_some();
            if count == 0 || said {
                return;
            }
            if to_node.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    let back = tokio::io::copy(&mut from_node, &mut to_client);
    tokio::select! {
        () = there => {}
        _ = back => {}
    }
}
