//! Streams around another one: what the engine asks of a stream beside reading and writing is
//! passed on to the one inside.

/// Passes on who the connection is. The type has its stream in the field `inner`. Nothing is
/// peeked at: what a layer has seen of the first bytes is taken as given.
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

/// Passes on what is known of the connection's TLS.
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
