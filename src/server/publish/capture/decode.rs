//! Decodes bodies in the usual content codings (RFC 9110, section 8.4), within a bound.

use bytes::Bytes;
use std::io::{self, Read};

/// The bytes that `body` stands for in `coding` (several with commas between, the last applied
/// last), at most `most` at every stage.
pub(in crate::server::publish) fn decode(
    body: &[u8],
    coding: &str,
    most: usize,
) -> Result<Bytes, String> {
    let mut bytes = Bytes::copy_from_slice(body);
    for coding in coding.split(',').rev() {
        let coding = coding.trim().to_ascii_lowercase();
        let failed = |error: io::Error| format!("the body is no {coding}: {error}");
        bytes = match coding.as_str() {
            "" | "identity" => bytes,
            "gzip" | "x-gzip" => {
                read(flate2::read::MultiGzDecoder::new(&*bytes), most).map_err(failed)?
            }
            "deflate" if is_wrapped(&bytes) => {
                read(flate2::read::ZlibDecoder::new(&*bytes), most).map_err(failed)?
            }
            "deflate" => read(flate2::read::DeflateDecoder::new(&*bytes), most).map_err(failed)?,
            "br" => {
                read(brotli_decompressor::Decompressor::new(&*bytes, 4096), most).map_err(failed)?
            }
            "zstd" => zstd::stream::read::Decoder::new(&*bytes)
                .and_then(|decoder| read(decoder, most))
                .map_err(failed)?,
            other => {
                return Err(format!("the body is in the coding {other:?}, which is not known"));
            }
        };
    }
    Ok(bytes)
}

/// True if a deflated body begins as it should (RFC 1950, section 2.2): some servers omit the
/// wrapping (RFC 9110, section 8.4.1.2).
fn is_wrapped(body: &[u8]) -> bool {
    let first = body.first_chunk().map(|first| u16::from_be_bytes(*first));
    first.is_some_and(|first| first >> 8 & 0x0f == 8 && first % 31 == 0)
}

fn read(decoder: impl Read, most: usize) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    decoder.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(io::Error::other(format!("it is longer than {most} bytes when decoded")));
    }
    Ok(bytes.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn bodies_are_decoded_within_the_bound() {
        let text = "hello ".repeat(1000).into_bytes();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&text).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::stream::encode_all(&*text, 0).unwrap();
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        zlib.write_all(&text).unwrap();
        let zlib = zlib.finish().unwrap();
        let mut raw =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        raw.write_all(&text).unwrap();
        let raw = raw.finish().unwrap();
        let mut twice = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        twice.write_all(&zstd).unwrap();
        let twice = twice.finish().unwrap();
        for (body, coding) in [
            (&gzip, "gzip"),
            (&zstd, "ZSTD"),
            (&zlib, "deflate"),
            (&raw, "deflate"),
            (&twice, "zstd, gzip"),
            (&text, ""),
            (&text, "identity"),
        ] {
            assert_eq!(decode(body, coding, 6000).unwrap(), text, "{coding}");
        }
        assert!(decode(&gzip, "gzip", 5999).unwrap_err().contains("longer than"));
        assert!(decode(&zstd, "zstd", 100).unwrap_err().contains("longer than"));
        assert!(decode(&raw, "deflate", 5999).unwrap_err().contains("longer than"));
        assert_eq!(decode(b"\x0b\x02\x80hello\x03", "br", 5).unwrap(), "hello");
        for coding in ["gzip", "deflate", "br", "zstd", "compress"] {
            assert!(decode(b"nonsense", coding, 100).is_err(), "{coding}");
        }
    }
}
