//! Messages of a client, byte by byte.

fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
    out
}

fn cstr(text: &str) -> Vec<u8> {
    let mut out = text.as_bytes().to_vec();
    out.push(0);
    out
}

/// `Query`
pub fn query(sql: &str) -> Vec<u8> {
    frame(b'Q', &cstr(sql))
}

/// `Parse` without declared types.
pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    parse_typed(name, sql, &[])
}

/// `Parse`
pub fn parse_typed(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body = [cstr(name), cstr(sql)].concat();
    body.extend_from_slice(&(types.len() as u16).to_be_bytes());
    types.iter().for_each(|oid| body.extend_from_slice(&oid.to_be_bytes()));
    frame(b'P', &body)
}

/// `Bind` of text parameters, results in text.
pub fn bind(portal: &str, statement: &str, values: &[Option<&str>]) -> Vec<u8> {
    let values: Vec<_> = values.iter().map(|value| value.map(str::as_bytes)).collect();
    bind_formats(portal, statement, &values, (&[], &[]))
}

/// `Bind` with formats of parameters and results.
pub fn bind_formats(
    portal: &str,
    statement: &str,
    values: &[Option<&[u8]>],
    (parameters, results): (&[i16], &[i16]),
) -> Vec<u8> {
    let mut body = [cstr(portal), cstr(statement)].concat();
    body.extend_from_slice(&(parameters.len() as u16).to_be_bytes());
    parameters.iter().for_each(|format| body.extend_from_slice(&format.to_be_bytes()));
    body.extend_from_slice(&(values.len() as u16).to_be_bytes());
    for value in values {
        match value {
            None => body.extend_from_slice(&(-1_i32).to_be_bytes()),
            Some(value) => {
                body.extend_from_slice(&(value.len() as i32).to_be_bytes());
                body.extend_from_slice(value);
            }
        }
    }
    body.extend_from_slice(&(results.len() as u16).to_be_bytes());
    results.iter().for_each(|format| body.extend_from_slice(&format.to_be_bytes()));
    frame(b'B', &body)
}

/// `Describe` of a statement.
pub fn describe_statement(name: &str) -> Vec<u8> {
    frame(b'D', &[b"S".to_vec(), cstr(name)].concat())
}

/// `Describe` of a portal.
pub fn describe_portal(name: &str) -> Vec<u8> {
    frame(b'D', &[b"P".to_vec(), cstr(name)].concat())
}

/// `Execute` of at most `limit` rows; 0 for all.
pub fn execute(portal: &str, limit: i32) -> Vec<u8> {
    frame(b'E', &[cstr(portal), limit.to_be_bytes().to_vec()].concat())
}

/// `Close` of a statement.
pub fn close_statement(name: &str) -> Vec<u8> {
    frame(b'C', &[b"S".to_vec(), cstr(name)].concat())
}

/// `Close` of a portal.
pub fn close_portal(name: &str) -> Vec<u8> {
    frame(b'C', &[b"P".to_vec(), cstr(name)].concat())
}

/// `Flush`
pub fn flush() -> Vec<u8> {
    frame(b'H', &[])
}

/// `Sync`
pub fn sync() -> Vec<u8> {
    frame(b'S', &[])
}

/// `CopyData`
pub fn copy_data(data: &[u8]) -> Vec<u8> {
    frame(b'd', data)
}

/// `CopyDone`
pub fn copy_done() -> Vec<u8> {
    frame(b'c', &[])
}

/// `CopyFail`
pub fn copy_fail(why: &str) -> Vec<u8> {
    frame(b'f', &cstr(why))
}

/// `FunctionCall` with one text argument, result in text.
pub fn function_call(oid: u32, argument: &str) -> Vec<u8> {
    let mut body = oid.to_be_bytes().to_vec();
    body.extend_from_slice(&[0, 0, 0, 1]);
    body.extend_from_slice(&(argument.len() as i32).to_be_bytes());
    body.extend_from_slice(argument.as_bytes());
    body.extend_from_slice(&[0, 0]);
    frame(b'F', &body)
}
