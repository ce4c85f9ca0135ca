//! Listeners as Kafka writes them: `NAME://host:port`.

use std::collections::BTreeMap;
use std::fmt;

/// One address, under a listener's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Name, in capitals.
    pub name: String,
    /// Host or address without brackets; empty means all addresses of the machine where it is listened on, and its host name where it is
    /// advertised.
    pub host: String,
    /// Port; 0 lets the system choose.
    pub port: u16,
}

impl Listener {
    /// Parses `NAME://host:port`, with brackets around an IPv6 address.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = || format!("{text} is not of the form NAME://host:port");
        let (name, address) = text.trim().split_once("://").ok_or_else(form)?;
        let (host, port) = address.rsplit_once(':').ok_or_else(form)?;
        let port = port.parse().map_err(|_| format!("{port} is not a port"))?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(host) => host,
            None if host.contains(':') => return Err(format!("the IPv6 address in {text} needs brackets")),
            None => host,
        };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)) {
            return Err(form());
        }
        Ok(Self { name: name.to_ascii_uppercase(), host: host.to_owned(), port })
    }

    /// Whether it stands for all addresses of the machine by number, which no client can connect to.
    pub fn is_wildcard(&self) -> bool {
        ["0.0.0.0", "::"].contains(&self.host.as_str())
    }

    /// What a socket binds to: `host:port`, all addresses when the host is empty.
    pub fn bind_address(&self) -> String {
        match self.host.as_str() {
            "" => format!("0.0.0.0:{}", self.port),
            host if host.contains(':') => format!("[{host}]:{}", self.port),
            host => format!("{host}:{}", self.port),
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, host, port } = self;
        if host.contains(':') { write!(f, "{name}://[{host}]:{port}") } else { write!(f, "{name}://{host}:{port}") }
    }
}

/// Parses a list of listeners whose names must differ.
pub(super) fn parse_all(texts: &[String]) -> Result<Vec<Listener>, String> {
    let mut listeners: Vec<Listener> = Vec::new();
    for text in texts {
        let listener = Listener::parse(text)?;
        if listeners.iter().any(|other| other.name == listener.name) {
            return Err(format!("the listener {} is named twice", listener.name));
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

/// The first of `listeners` that binds to what one before it binds to.
pub(super) fn bound_twice(listeners: &[Listener]) -> Option<&Listener> {
    let same = |one: &Listener, other: &Listener| one.port != 0 && one.bind_address() == other.bind_address();
    listeners.iter().enumerate().find_map(|(at, one)| listeners.iter().take(at).any(|o| same(one, o)).then_some(one))
}

/// Parses `NAME:PROTOCOL,…`.
pub(super) fn protocols(map: &[String]) -> Result<BTreeMap<String, String>, String> {
    map.iter()
        .map(|pair| {
            let (name, protocol) =
                pair.split_once(':').ok_or_else(|| format!("{pair} is not of the form NAME:PROTOCOL"))?;
            Ok((name.trim().to_ascii_uppercase(), protocol.trim().to_ascii_uppercase()))
        })
        .collect()
}
