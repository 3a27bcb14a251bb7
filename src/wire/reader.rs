//! Reads the fields of one frame's body, and never past its end.

/// Bytes that no PostgreSQL message looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(pub &'static str);

/// A cursor over one frame's body.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads from the start of `body`.
    pub fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.bytes(1).map(|b| b[0])
    }

    /// Two bytes, as a count or a format.
    pub fn i16(&mut self) -> Result<i16, Malformed> {
        self.bytes(2).map(|b| i16::from_be_bytes([b[0], b[1]]))
    }

    /// Four bytes, as a length or an id.
    pub fn i32(&mut self) -> Result<i32, Malformed> {
        self.bytes(4).map(|b| i32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// Four bytes, as an object id.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.bytes(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// A count of things that each take at least `each` bytes; at most what can follow.
    pub fn count(&mut self, each: usize) -> Result<usize, Malformed> {
        let bytes = self.bytes(2)?;
        let count = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
        if count * each > self.0.len() {
            return Err(Malformed("a count is larger than the message"));
        }
        Ok(count)
    }

    /// Bytes up to a NUL, without it.
    pub fn cstr(&mut self) -> Result<&'a [u8], Malformed> {
        let end = memchr::memchr(0, self.0).ok_or(Malformed("a string has no end"))?;
        let text = self.bytes(end)?;
        self.bytes(1)?;
        Ok(text)
    }

    /// A length and as many bytes; `None` for length −1.
    pub fn value(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.i32()? {
            -1 => Ok(None),
            len => {
                let len = usize::try_from(len).map_err(|_| Malformed("a length is negative"))?;
                self.bytes(len).map(Some)
            }
        }
    }

    /// What is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Fails if anything is left: a trailing byte would be the start of a smuggled message.
    pub fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("it has bytes too many")) }
    }
}
