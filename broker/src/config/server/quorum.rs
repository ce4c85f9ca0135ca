//! How a process is part of the metadata quorum, under Kafka's names.

use super::listener::Listener;

/// The quorum as a process is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QuorumConfig {
    /// Where a controller listens to the other nodes. None for a process that is no controller, and for a node that is the only
    /// one.
    pub listener: Option<Listener>,
    /// What the others are told of it; an empty host stands for the machine's name, port 0 for the port it got.
    pub advertised: Option<Listener>,
    /// `controller.quorum.voters`: who votes in a new cluster. Empty for a node that is its own quorum, or joins one.
    pub voters: Vec<Voter>,
    /// `controller.quorum.bootstrap.servers`: controllers to ask first, as host:port.
    pub bootstrap: Vec<String>,
}

impl QuorumConfig {
    /// Whether there are, or may be, other nodes.
    pub fn is_shared(&self) -> bool {
        self.voters.len() > 1 || !self.bootstrap.is_empty() || self.listener.is_some()
    }
}

/// One of `controller.quorum.voters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    /// Node id.
    pub id: i32,
    /// Where it listens to other nodes, as host:port.
    pub address: String,
}

impl Voter {
    /// Parses `id@host:port`.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = || format!("{text} is not of the form id@host:port");
        let (id, address) = text.trim().split_once('@').ok_or_else(form)?;
        let id = id.parse().ok().filter(|id| *id >= 0).ok_or_else(form)?;
        address_of(address).ok_or_else(form)?;
        Ok(Self { id, address: address.to_owned() })
    }
}

/// Parses voters, whose ids and addresses must differ.
pub(super) fn parse_voters(texts: &[String]) -> Result<Vec<Voter>, String> {
    let mut voters: Vec<Voter> = Vec::new();
    for text in texts {
        let voter = Voter::parse(text)?;
        if voters.iter().any(|other| other.id == voter.id) {
            return Err(format!("voter {} is named twice", voter.id));
        }
        if voters.iter().any(|other| other.address == voter.address) {
            return Err(format!("two voters are said to be at {}", voter.address));
        }
        voters.push(voter);
    }
    Ok(voters)
}

/// The host and port of an address that can be connected to.
pub(super) fn address_of(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty()).then_some((host, port))
}
