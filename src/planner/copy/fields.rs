//! One field of a line in COPY's text and CSV formats, its escapes undone
//! (`CopyReadAttributesText`, `CopyReadAttributesCSV`).

/// The raw bytes of field `position` of a text line; `None` if there are fewer.
pub(super) fn text(line: &[u8], delimiter: u8, position: usize) -> Option<&[u8]> {
    let (mut field, mut start, mut at) = (0, 0, 0);
    while at < line.len() {
        if line[at] == delimiter {
            if field == position {
                return Some(&line[start..at]);
            }
            field += 1;
            start = at + 1;
        }
        at += if line[at] == b'\\' { 2 } else { 1 };
    }
    (field == position).then(|| &line[start..])
}

/// A text field's value.
pub(super) fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'\\' {
            value.push(*byte);
            continue;
        }
        let Some((escape, after)) = rest.split_first() else {
            value.push(b'\\');
            break;
        };
        rest = after;
        value.push(match escape {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'0'..=b'7' => digits(&mut rest, u32::from(*escape - b'0'), 8),
            b'x' if rest.first().is_some_and(u8::is_ascii_hexdigit) => digits(&mut rest, 0, 16),
            other => *other,
        });
    }
    value
}

/// Up to two more digits of an octal or hexadecimal escape.
fn digits(rest: &mut &[u8], first: u32, radix: u32) -> u8 {
    let mut value = first;
    for _ in 0..2 {
        let digit = rest.first().and_then(|byte| char::from(*byte).to_digit(radix));
        let Some(digit) = digit else { break };
        value = value * radix + digit;
        *rest = &rest[1..];
    }
    u8::try_from(value & 0xFF).unwrap_or_default()
}

/// The value of field `position` of a CSV line and whether it had quotes; `None` if there are fewer.
pub(super) fn csv(
    line: &[u8],
    delimiter: u8,
    (quote, escape): (u8, u8),
    position: usize,
) -> Option<(Vec<u8>, bool)> {
    let (mut field, mut at) = (0, 0);
    let (mut value, mut quoted, mut in_quote) = (Vec::new(), false, false);
    while let Some(byte) = line.get(at).copied() {
        let next = line.get(at + 1).copied();
        if !in_quote && byte == delimiter {
            if field == position {
                break;
            }
            field += 1;
            value.clear();
            quoted = false;
        } else if !in_quote && byte == quote {
            (quoted, in_quote) = (true, true);
        } else if in_quote && byte == escape && (next == Some(escape) || next == Some(quote)) {
            value.extend(next);
            at += 1;
        } else if in_quote && byte == quote {
            in_quote = false;
        } else {
            value.push(byte);
        }
        at += 1;
    }
    (field == position).then_some((value, quoted))
}
