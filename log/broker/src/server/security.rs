//! Who may connect: a listener's security protocol, and how it finds out whom it talks to.
//!
//! Today every listener is plaintext and every client anonymous. TLS and SASL get their place here: a protocol that is
//! asked for and not served is refused, never ignored.

use std::io;

use tokio::net::TcpStream;

/// On whose behalf a request is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Principal {
    /// Nobody in particular: the listener asks for no proof.
    Anonymous,
}

/// How bytes travel (`listener.security.protocol.map`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecurityProtocol {
    /// As they are, from anyone.
    Plaintext,
}

/// How a listener learns the principal of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Authenticator {
    /// It does not ask.
    Anonymous,
}

impl Authenticator {
    /// Finds out who is at the other end, before the first request is read.
    pub(super) fn authenticate(self, _stream: &TcpStream) -> Principal {
        match self {
            Self::Anonymous => Principal::Anonymous,
        }
    }
}

/// One address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listener {
    /// Its name (`listeners`), which is its protocol's unless there are several of one protocol.
    pub(super) name: String,
    pub(super) protocol: SecurityProtocol,
    /// `host:port`.
    pub(super) address: String,
    pub(super) authenticator: Authenticator,
}

impl Listener {
    /// Parses `[PROTOCOL://]host:port`.
    ///
    /// # Errors
    /// If the protocol is one that is not served.
    pub(super) fn parse(listen: &str) -> io::Result<Self> {
        let (name, address) = listen.split_once("://").unwrap_or(("PLAINTEXT", listen));
        let refuse = |reason: &str| {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("cannot listen on `{listen}`: {reason}")))
        };
        match name {
            "PLAINTEXT" => Ok(Self {
                name: name.to_owned(),
                protocol: SecurityProtocol::Plaintext,
                address: address.to_owned(),
                authenticator: Authenticator::Anonymous,
            }),
            "SSL" | "SASL_PLAINTEXT" | "SASL_SSL" => refuse("TLS and SASL are not supported yet, use PLAINTEXT"),
            _ => refuse("there is no such security protocol, use PLAINTEXT"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_plaintext_is_listened_on() {
        let check = |listen: &str, expected: Result<&str, &str>| {
            let parsed = Listener::parse(listen).map(|l| l.address).map_err(|e| e.to_string());
            assert_eq!(parsed, expected.map(str::to_owned).map_err(str::to_owned));
        };
        check("127.0.0.1:9092", Ok("127.0.0.1:9092"));
        check("PLAINTEXT://[::1]:9092", Ok("[::1]:9092"));
        check(
            "SASL_SSL://0.0.0.0:9093",
            Err("cannot listen on `SASL_SSL://0.0.0.0:9093`: TLS and SASL are not supported yet, use PLAINTEXT"),
        );
        check("TLS://x:1", Err("cannot listen on `TLS://x:1`: there is no such security protocol, use PLAINTEXT"));
    }
}
