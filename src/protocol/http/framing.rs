//! The end of a body, decided in one place, so that no later reader can see it differently
//! (RFC 9112, sections 6 and 7).

/// The part of a connection's bytes that belongs to the request, or to the response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Framing {
    /// This many more bytes.
    Length(u64),
    /// Chunks, until the last.
    Chunked(Chunks),
    /// Everything: the connection changes its protocol.
    Endless,
}

/// Bytes that are no chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunked body is framed wrongly")]
pub struct Misframed;

impl From<Misframed> for std::io::Error {
    fn from(error: Misframed) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

impl Framing {
    /// Number of the next `bytes` that belong to the request.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, Misframed> {
        match self {
            Self::Endless => Ok(bytes.len()),
            Self::Chunked(chunks) => chunks.take(bytes),
            Self::Length(left) => {
                let taken =
                    usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= taken as u64;
                Ok(taken)
            }
        }
    }

    /// The next piece of the body itself, without chunk sizes and trailers; `bytes` is left with
    /// what is behind it. Empty if `bytes` has no more of it.
    pub fn data<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<&'a [u8], Misframed> {
        if let Self::Chunked(chunks) = self {
            return chunks.data(bytes);
        }
        let taken = self.take(bytes)?;
        let (data, rest) = bytes.split_at(taken);
        *bytes = rest;
        Ok(data)
    }

    /// True at the end of the request.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Endless => false,
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.at == State::End,
        }
    }
}

impl Default for Chunks {
    fn default() -> Self {
        Self { at: State::Size, left: 0, length: 0, extensions: false }
    }
}

/// Follows a chunked body. Sizes are plain hex. Extensions of a request are refused: their only use
/// in practice is to make two readers disagree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunks {
    at: State,
    /// Bytes of the chunk still to come, or its size as far as it has been read.
    left: u64,
    /// Digits of the size, or bytes of the trailers so far.
    length: usize,
    /// Extensions, and spaces behind a size, are skipped.
    extensions: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// State the start of a trailer line, or of the empty one that ends the body.
    Trailer,
    TrailerText,
    TrailerLf,
    LastLf,
    End,
}

impl Chunks {
    /// Digits of a size: no client sends as much as 2^48 bytes.
    const MAX_DIGITS: usize = 12;
    /// Bytes of the extensions of a chunk.
    const MAX_EXTENSION: usize = 256;
    /// Bytes of trailers.
    const MAX_TRAILERS: usize = 8 * 1024;

    /// Chunks of a response. A recipient has to skip extensions (RFC 9112, section 7.1.1), and
    /// some servers fill their sizes up with spaces; neither may go on to another reader.
    pub fn of_response() -> Self {
        Self { extensions: true, ..Self::default() }
    }

    fn data<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<&'a [u8], Misframed> {
        while !bytes.is_empty() && self.at != State::End {
            if self.at != State::Data {
                self.at = self.step(bytes[0])?;
                *bytes = &bytes[1..];
                continue;
            }
            let length =
                usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            let (data, rest) = bytes.split_at(length);
            *bytes = rest;
            self.left -= length as u64;
            if self.left == 0 {
                self.at = State::DataCr;
            }
            return Ok(data);
        }
        Ok(&[])
    }

    fn take(&mut self, bytes: &[u8]) -> Result<usize, Misframed> {
        let mut taken = 0;
        while taken < bytes.len() && self.at != State::End {
            if self.at == State::Data {
                let rest = (bytes.len() - taken) as u64;
                let data = self.left.min(rest);
                self.left -= data;
                taken += data as usize;
                if self.left == 0 {
                    self.at = State::DataCr;
                }
                continue;
            }
            self.at = self.step(bytes[taken])?;
            taken += 1;
        }
        Ok(taken)
    }

    fn step(&mut self, byte: u8) -> Result<State, Misframed> {
        match (self.at, byte) {
            (State::Size | State::Extension, b'\r') if self.length > 0 => Ok(State::SizeLf),
            (State::Size, b';' | b' ' | b'\t') if self.extensions && self.length > 0 => {
                self.length = 1;
                Ok(State::Extension)
            }
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..)
                if self.length < Self::MAX_EXTENSION =>
            {
                self.length += 1;
                Ok(State::Extension)
            }
            (State::Size, _) if self.length < Self::MAX_DIGITS => {
                let digit = char::from(byte).to_digit(16).ok_or(Misframed)?;
                self.left = self.left * 16 + u64::from(digit);
                self.length += 1;
                Ok(State::Size)
            }
            (State::SizeLf, b'\n') => {
                self.length = 0;
                Ok(if self.left == 0 { State::Trailer } else { State::Data })
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size),
            (State::Trailer, b'\r') => Ok(State::LastLf),
            (State::Trailer | State::TrailerText, b'\n' | 0) => Err(Misframed),
            (State::TrailerText, b'\r') => Ok(State::TrailerLf),
            (State::Trailer | State::TrailerText, _) if self.length < Self::MAX_TRAILERS => {
                self.length += 1;
                Ok(State::TrailerText)
            }
            (State::TrailerLf, b'\n') => Ok(State::Trailer),
            (State::LastLf, b'\n') => Ok(State::End),
            _ => Err(Misframed),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Number of bytes of `body` that are taken when it comes in pieces of `piece` bytes.
    fn taken(body: &[u8], piece: usize) -> Result<(usize, bool), Misframed> {
        let mut framing = Framing::Chunked(Chunks::default());
        let mut sum = 0;
        for part in body.chunks(piece) {
            sum += framing.take(part)?;
        }
        Ok((sum, framing.is_over()))
    }

    #[test]
    fn a_chunked_body_ends_where_it_ends_however_it_is_torn() {
        let body = b"5\r\nhello\r\n00A\r\n0123456789\r\n0\r\nX: y\r\n\r\n";
        let mut with_more = body.to_vec();
        with_more.extend_from_slice(b"GET / HTTP/1.1\r\n");
        for piece in 1..with_more.len() {
            assert_eq!(taken(&with_more, piece), Ok((body.len(), true)), "{piece}");
        }
        assert_eq!(taken(b"5\r\nhel", 3), Ok((6, false)));
    }

    #[test]
    fn chunk_framing_that_would_have_to_be_guessed_is_refused() {
        for body in [
            "\r\n",
            "0x5\r\nhello\r\n",
            "+5\r\nhello\r\n",
            "5 \r\nhello\r\n",
            "5;a=b\r\nhello\r\n",
            "5\nhello\r\n",
            "5\r\nhello\n",
            "5\r\nhelloX\r\n",
            "5\r\nhello\r\n\r\n",
            "g\r\n",
            "1000000000000000\r\n",
            "0\r\nX: y\n\r\n",
            "0\r\n\n",
            "-1\r\n",
            "0\r\n\rX",
        ] {
            assert_eq!(taken(body.as_bytes(), 4), Err(Misframed), "{body:?}");
        }
    }

    /// The data of `body` when it comes in pieces of `piece` bytes, and whether it is all there.
    fn data(body: &[u8], piece: usize, chunks: Chunks) -> Result<(Vec<u8>, bool), Misframed> {
        let mut framing = Framing::Chunked(chunks);
        let mut all = Vec::new();
        for mut part in body.chunks(piece) {
            while !part.is_empty() && !framing.is_over() {
                all.extend_from_slice(framing.data(&mut part)?);
            }
        }
        Ok((all, framing.is_over()))
    }

    #[test]
    fn the_data_of_chunks_is_theirs_alone_however_they_are_torn() {
        let body = b"5\r\nhello\r\n00A\r\n0123456789\r\n0\r\nX: y\r\n\r\nGET";
        for piece in 1..body.len() {
            let expected = Ok((b"hello0123456789".to_vec(), true));
            assert_eq!(data(body, piece, Chunks::default()), expected, "{piece}");
        }
    }

    #[test]
    fn a_response_s_extensions_are_skipped_and_bounded() {
        for (body, is_good) in [
            ("5;a=\"b\"\r\nhello\r\n0;x\r\n\r\n", true),
            ("5  \r\nhello\r\n0 \t\r\n\r\n", true),
            (";a\r\nhello\r\n", false),
            ("5 5\n\r\nhello", false),
            ("5;a\0\r\nhello", false),
            ("5;a\nhello", false),
            ("5;a\r\r\nhello", false),
            (&format!("5;{}\r\n", "x".repeat(300)), false),
        ] {
            let response = data(body.as_bytes(), 3, Chunks::of_response());
            assert_eq!(response, is_good.then(|| (b"hello".to_vec(), true)).ok_or(Misframed));
            assert_eq!(data(body.as_bytes(), 3, Chunks::default()), Err(Misframed), "{body:?}");
        }
    }

    #[test]
    fn a_length_takes_that_much_and_no_more() {
        let mut framing = Framing::Length(5);
        assert_eq!((framing.take(b"abc"), framing.is_over()), (Ok(3), false));
        assert_eq!((framing.take(b"defg"), framing.is_over()), (Ok(2), true));
        assert_eq!(framing.take(b"h"), Ok(0));
    }
}
