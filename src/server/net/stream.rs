//! Wrappers of streams: pass pingora's requirements on a stream, beside reading and writing, on to
//! the inner one.

use bytes::Buf;
use tokio::io::ReadBuf;

/// Moves of `bytes` to `buf` what it has room for.
pub(crate) fn copy_read(bytes: &mut impl Buf, buf: &mut ReadBuf<'_>) {
    let chunk = bytes.chunk();
    let length = chunk.len().min(buf.remaining());
    buf.put_slice(&chunk[..length]);
    bytes.advance(length);
}

/// Passes on the identity of the connection. The type has its stream in the field `inner`. Peeking
/// is not supported: a layer's own view of the first bytes is taken as given.
macro_rules! pass_on_identity {
    ($outer:ty) => {
        impl pingora::protocols::UniqueID for $outer {
            fn id(&self) -> pingora::protocols::UniqueIDType {
                self.inner.id()
            }
        }

        impl pingora::protocols::GetTimingDigest for $outer {
            fn get_timing_digest(&self) -> Vec<Option<pingora::protocols::TimingDigest>> {
                self.inner.get_timing_digest()
            }
        }

        impl pingora::protocols::GetProxyDigest for $outer {
            fn get_proxy_digest(
                &self,
            ) -> Option<std::sync::Arc<pingora::protocols::raw_connect::ProxyDigest>> {
                self.inner.get_proxy_digest()
            }
        }

        impl pingora::protocols::GetSocketDigest for $outer {
            fn get_socket_digest(
                &self,
            ) -> Option<std::sync::Arc<pingora::protocols::SocketDigest>> {
                self.inner.get_socket_digest()
            }
        }

        impl pingora::protocols::Peek for $outer {}
    };
}

/// Passes on the connection's TLS state.
macro_rules! pass_on_tls {
    ($outer:ty) => {
        impl pingora::protocols::Ssl for $outer {
            fn get_ssl(&self) -> Option<&pingora::protocols::tls::TlsRef> {
                self.inner.get_ssl()
            }

            fn get_ssl_digest(&self) -> Option<std::sync::Arc<pingora::protocols::tls::SslDigest>> {
                self.inner.get_ssl_digest()
            }

            fn selected_alpn_proto(&self) -> Option<pingora::protocols::ALPN> {
                self.inner.selected_alpn_proto()
            }
        }
    };
}

pub(crate) use {pass_on_identity, pass_on_tls};
