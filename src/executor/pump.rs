//! Relays a node's answer to the client: headers are looked at, bodies are passed on as they come.

use std::ops::Range;

use super::{Client, Fault};
use crate::backend::{Connection, Guard};
use crate::wire::{body, parameter_status};

/// What to do with a frame of a node's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The client gets it.
    Forward,
    /// The client does not get it.
    Drop,
    /// The client gets it, and the pump ends after it.
    ForwardLast,
    /// The client does not get it, and the pump ends after it.
    DropLast,
}

impl Verdict {
    fn forwards(self) -> bool {
        matches!(self, Self::Forward | Self::ForwardLast)
    }

    /// The same, unless the frame reports a setting that the client is to hear of: it does so before the
    /// next `ReadyForQuery`.
    fn once_reported(
        self,
        backend: &mut Connection,
        frame: Range<usize>,
        client: &mut Client,
    ) -> Self {
        let frame = &backend.incoming()[frame];
        if frame.first() != Some(&b'S') || !self.forwards() {
            return self;
        }
        if let Ok((name, value)) = parameter_status(body(frame)) {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            let (name, value) = (text(name), text(value));
            let before = backend.parameters.get(&name).map(String::as_str);
            client.report(&name, &value, before);
        }
        Self::Drop
    }

    fn is_last(self) -> bool {
        matches!(self, Self::ForwardLast | Self::DropLast)
    }
}

/// A frame of rows or of COPY data, which is passed on before all of it has come.
fn is_bulk(tag: u8) -> bool {
    matches!(tag, b'D' | b'd')
}

/// Passes frames from a node to the client, as `look` says of each, up to one that it calls the
/// last. `look` gets the tag and the frame; of rows and COPY data perhaps only its beginning.
/// Returns how many bytes the node sent. Memory is bounded by one frame that is not bulk. Not cancel
/// safe.
pub async fn pump(
    backend: &mut Guard,
    client: &mut Client,
    mut look: impl FnMut(u8, &[u8]) -> Verdict,
) -> Result<u64, Fault> {
    let (backend, pool) = backend.parts();
    let mut bytes = 0;
    // What is left of a bulk frame whose beginning was passed on, and whether it is passed on.
    let (mut rest, mut rest_forwards) = (0, false);
    loop {
        let available = backend.incoming().len();
        let mut at = rest.min(available);
        let mut run = if rest_forwards { 0 } else { at };
        rest -= at;
        let mut ended = false;
        while rest == 0 && !ended {
            let Some(frame) = backend.frame_after(at)? else { break };
            let here = frame.len.min(available - at);
            if here < frame.len && !is_bulk(frame.tag) {
                backend.incoming().reserve(frame.len - here);
                break;
            }
            let verdict = look(frame.tag, &backend.incoming()[at..at + here]);
            let verdict = verdict.once_reported(backend, at..at + here, client);
            let instead = match frame.tag {
                b'D' | b'd' => None,
                b'Z' if verdict.forwards() && client.has_reports() => {
                    backend.note(at..at + here);
                    client.relay(&backend.incoming()[run..at]).await?;
                    client.put_reports();
                    run = at;
                    None
                }
                b'T' | b't' if verdict.forwards() && !pool.has_known_ids() => {
                    pool.described(&backend.incoming()[at..at + here]).await?
                }
                b'E' if verdict.forwards() => {
                    client.note_error();
                    client.instead_of(&backend.incoming()[at..at + here]).await
                }
                _ => {
                    backend.note(at..at + here);
                    None
                }
            };
            if !verdict.forwards() || instead.is_some() {
                let before = &backend.incoming()[run..at];
                if !client.keep(before) {
                    client.relay(before).await?;
                }
                run = at + here;
            }
            if let Some(instead) = instead {
                client.relay(&instead).await?;
            }
            at += here;
            rest = frame.len - here;
            rest_forwards = verdict.forwards();
            ended = verdict.is_last();
        }
        let answer = &backend.incoming()[run..at];
        if !client.keep(answer) {
            client.relay(answer).await?;
        }
        backend.consume(at);
        bytes += at as u64;
        if ended {
            return Ok(bytes);
        }
        client.flush().await?;
        backend.receive().await?;
    }
}
