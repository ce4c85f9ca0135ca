//! A network of machines on this machine: each node in a network namespace of its own, joined to a bridge by a virtual cable, with
//! nftables between them. Needs root, `ip` and `nft`.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use proto::host::{Entropy, SystemEntropy};

/// What does not come through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing in either direction.
    Both,
    /// What the node sends.
    Out,
    /// What is sent to the node.
    In,
}

/// The network. Dropping it takes it away; processes in it must have ended.
#[derive(Debug)]
pub struct Lan {
    /// Begins the names of everything that is made.
    name: String,
    /// The first two bytes of all addresses, as 10.X.Y.
    net: (u8, u8),
    hosts: BTreeMap<i32, Ipv4Addr>,
}

impl Lan {
    /// A network without nodes; this process is on it, too.
    ///
    /// # Errors
    /// If that is not allowed here, or `ip` or `nft` are missing.
    pub fn new() -> io::Result<Lan> {
        let draw = SystemEntropy.next_u64();
        let [x, y, ..] = draw.to_le_bytes();
        let lan = Lan { name: format!("fn{:06x}", draw >> 40), net: (64 + x % 128, y), hosts: BTreeMap::new() };
        run("nft", &["--version"])?;
        run("ip", &["link", "add", &lan.name, "type", "bridge"])?;
        run("ip", &["addr", "add", &format!("{}/24", lan.address(1)), "dev", &lan.name])?;
        run("ip", &["link", "set", &lan.name, "up"])?;
        Ok(lan)
    }

    fn address(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.net.0, self.net.1, last)
    }

    fn space(&self, id: i32) -> String {
        format!("{}-{id}", self.name)
    }

    /// Adds a machine: its address.
    pub(super) fn add(&mut self, id: i32) -> io::Result<String> {
        let last = u8::try_from(10 + self.hosts.len()).map_err(io::Error::other)?;
        let (space, address, near) = (self.space(id), self.address(last), format!("{}v{id}", self.name));
        // Known first, so that what was made is taken away again whatever fails.
        self.hosts.insert(id, address);
        run("ip", &["netns", "add", &space])?;
        run("ip", &["link", "add", &near, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
        run("ip", &["link", "set", &near, "master", &self.name, "up"])?;
        run("ip", &["-n", &space, "addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        run("ip", &["-n", &space, "link", "set", "eth0", "up"])?;
        run("ip", &["-n", &space, "link", "set", "lo", "up"])?;
        Ok(address.to_string())
    }

    /// What begins a command line that is to run on a machine.
    pub(super) fn entry(&self, id: i32) -> Vec<String> {
        ["ip", "netns", "exec", &self.space(id)].map(str::to_owned).to_vec()
    }

    /// Has packets between node `id` and `others` vanish from now on, beside those of earlier cuts. Connections do not hear of it.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn cut(&self, id: i32, others: &[i32], what: Cut) -> io::Result<()> {
        let hosts: Vec<Ipv4Addr> = others.iter().filter_map(|other| self.hosts.get(other)).copied().collect();
        self.block(id, &hosts, what)
    }

    /// Has packets between node `id` and clients on this machine vanish from now on.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn cut_clients(&self, id: i32, what: Cut) -> io::Result<()> {
        self.block(id, &[self.address(1)], what)
    }

    fn block(&self, id: i32, hosts: &[Ipv4Addr], what: Cut) -> io::Result<()> {
        let space = self.space(id);
        let nft = |words: &[&str]| run("ip", &[&["netns", "exec", &space, "nft"], words].concat());
        nft(&["add", "table", "ip", "cut"])?;
        nft(&["add", "chain", "ip", "cut", "in", "{ type filter hook input priority 0 ; }"])?;
        nft(&["add", "chain", "ip", "cut", "out", "{ type filter hook output priority 0 ; }"])?;
        for host in hosts.iter().map(Ipv4Addr::to_string) {
            if matches!(what, Cut::Both | Cut::In) {
                nft(&["add", "rule", "ip", "cut", "in", "ip", "saddr", &host, "drop"])?;
            }
            if matches!(what, Cut::Both | Cut::Out) {
                nft(&["add", "rule", "ip", "cut", "out", "ip", "daddr", &host, "drop"])?;
            }
        }
        Ok(())
    }

    /// Ends all cuts at a node.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn heal(&self, id: i32) -> io::Result<()> {
        run("ip", &["netns", "exec", &self.space(id), "nft", "flush", "ruleset"])
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for id in self.hosts.keys() {
            let _ = run("ip", &["link", "del", &format!("{}v{id}", self.name)]);
            let _ = run("ip", &["netns", "del", &self.space(*id)]);
        }
        let _ = run("ip", &["link", "del", &self.name]);
    }
}

fn run(program: &str, arguments: &[&str]) -> io::Result<()> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program} {}: {}", arguments.join(" "), said.trim())))
}
