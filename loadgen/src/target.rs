//! Where the broker is: a parsed `http://host[:port][/prefix]`. Leaves the load's connections to `connection`.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// The broker's address as the command line gave it, cut into the parts that requests need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `host[:port]` exactly as given: the `Host` header.
    pub authority: String,
    /// Host without the brackets of an IPv6 literal.
    pub host: String,
    /// TCP port; 80 when the URL names none.
    pub port: u16,
    /// What stands before `/v1/…`; empty or begins with `/`, never ends with it.
    pub prefix: String,
}

/// Why a URL cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TargetError {
    /// Not `http://`.
    #[error("only http:// URLs can be driven, for example http://127.0.0.1:4437")]
    Scheme,
    /// Nothing between `//` and the next `/`.
    #[error("the URL names no host")]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error("`{0}` is not a port")]
    Port(String),
    /// Something that cannot stand in a request line or a Host header.
    #[error("the URL holds a user name, a query, a fragment or a character that is not visible ASCII")]
    Character,
}

impl Target {
    /// The first of the host's addresses at which somebody listens. Fails as the resolver or the last connect does.
    pub fn reach(&self, timeout: Duration) -> io::Result<SocketAddr> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(_) => return Ok(address),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "http://{}{}", self.authority, self.prefix)
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(url: &str) -> Result<Target, TargetError> {
        let rest = url.strip_prefix("http://").ok_or(TargetError::Scheme)?;
        if !rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"@?#\\".contains(&byte)) {
            return Err(TargetError::Character);
        }
        let (authority, prefix) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        // The last colon parts the port, unless it stands inside the brackets of an IPv6 literal.
        let (host, port) = match authority.rfind(':') {
            Some(colon) if !authority[colon..].contains(']') => {
                let digits = &authority[colon + 1..];
                let port = digits.parse().ok().filter(|port| *port != 0);
                (&authority[..colon], port.ok_or_else(|| TargetError::Port(digits.to_owned()))?)
            }
            _ => (authority, 80),
        };
        let host = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(TargetError::Host);
        }
        Ok(Target {
            authority: authority.to_owned(),
            host: host.to_owned(),
            port,
            prefix: prefix.trim_end_matches('/').to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_fall_into_their_parts() {
        for (url, authority, host, port, prefix) in [
            ("http://127.0.0.1:4437", "127.0.0.1:4437", "127.0.0.1", 4437, ""),
            ("http://localhost", "localhost", "localhost", 80, ""),
            ("http://[::1]:8080/", "[::1]:8080", "::1", 8080, ""),
            ("http://[::1]", "[::1]", "::1", 80, ""),
            ("http://proxy:1/a/b/", "proxy:1", "proxy", 1, "/a/b"),
        ] {
            let target: Target = url.parse().unwrap();
            assert_eq!(
                (&*target.authority, &*target.host, target.port, &*target.prefix),
                (authority, host, port, prefix)
            );
        }
    }

    #[test]
    fn what_cannot_be_driven_is_refused_by_name() {
        for (url, error) in [
            ("https://a", TargetError::Scheme),
            ("127.0.0.1:4437", TargetError::Scheme),
            ("http://", TargetError::Host),
            ("http://:80", TargetError::Host),
            ("http://a:0", TargetError::Port("0".into())),
            ("http://a:b", TargetError::Port("b".into())),
            ("http://u@a", TargetError::Character),
            ("http://a/x y", TargetError::Character),
        ] {
            assert_eq!(url.parse::<Target>(), Err(error), "{url}");
        }
    }
}
