//! The sockets of a node, and the addresses that clients are told for them.

use super::StartError;
use crate::config::server::{Listener, ServerConfig};
use proto::host::{Listener as Socket, Network};
use proto::metadata::{Endpoint, SecurityProtocol};
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// A socket that listens, and where.
pub(super) struct Bound<S> {
    pub(super) socket: S,
    pub(super) address: SocketAddr,
}

/// A Kafka listener's socket.
pub(super) struct KafkaSocket {
    /// The listener's name.
    pub(super) name: String,
    pub(super) bound: Bound<Socket>,
}

/// Listens at every address of `listeners`.
pub(super) async fn bind_kafka(server: &ServerConfig, network: &dyn Network) -> Result<Vec<KafkaSocket>, StartError> {
    let mut sockets = Vec::with_capacity(server.listeners.len());
    for listener in &server.listeners {
        sockets.push(KafkaSocket { name: listener.name.clone(), bound: listen(network, listener).await? });
    }
    Ok(sockets)
}

/// Listens at the address of one of `listeners`.
pub(super) async fn listen(network: &dyn Network, listener: &Listener) -> Result<Bound<Socket>, StartError> {
    let address = listener.bind_address();
    let refused = |error| refused("listeners", &address, &error);
    let socket = network.listen(&address).await.map_err(refused)?;
    let address = socket.local_addr().map_err(refused)?;
    Ok(Bound { socket, address })
}

/// Listens at every address of `firn.http.listeners`. HTTP is served over TCP only.
pub(super) async fn bind_http(server: &ServerConfig) -> Result<Vec<Bound<TcpListener>>, StartError> {
    let mut sockets = Vec::with_capacity(server.http.len());
    for address in &server.http {
        let refused = |error| refused("firn.http.listeners", address, &error);
        let socket = TcpListener::bind(address).await.map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        sockets.push(Bound { socket, address });
    }
    Ok(sockets)
}

fn refused(setting: &str, address: &str, error: &std::io::Error) -> StartError {
    StartError(format!("cannot listen on {address}: {error} ({setting} names the address)"))
}

/// What clients are told of each listener, by its name. `bound` are the listeners with the addresses they got, `machine` is the host's
/// name.
pub(super) fn endpoints(advertised: &[Listener], bound: &[(String, SocketAddr)], machine: &str) -> Vec<Endpoint> {
    bound
        .iter()
        .map(|(name, address)| {
            let told = advertised.iter().find(|one| one.name == *name);
            let host = match told.map(|one| one.host.as_str()) {
                Some("") => machine.to_owned(),
                Some(host) => host.to_owned(),
                None => address.ip().to_string(),
            };
            // Port 0 stands for the one that the system chose.
            let port = told.map(|one| one.port).filter(|port| *port != 0).unwrap_or(address.port());
            Endpoint { listener: name.clone(), host, port, protocol: SecurityProtocol::Plaintext }
        })
        .collect()
}

/// What this machine calls itself.
pub(super) fn machine() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_listener_is_told_as_its_own_advertised_one() {
        let advertised: Vec<Listener> = ["OUTSIDE://broker.example.org:443", "INSIDE://:0", "LOCAL://127.0.0.1:0"]
            .into_iter()
            .map(|text| Listener::parse(text).expect("a listener"))
            .collect();
        let at = |port| SocketAddr::from(([0, 0, 0, 0], port));
        let bound = ["INSIDE", "LOCAL", "OUTSIDE"].map(str::to_owned).into_iter().zip([at(1), at(2), at(3)]);
        let told: Vec<(String, String, u16)> = endpoints(&advertised, &bound.collect::<Vec<_>>(), "me")
            .into_iter()
            .map(|endpoint| (endpoint.listener, endpoint.host, endpoint.port))
            .collect();
        let expected = [("INSIDE", "me", 1), ("LOCAL", "127.0.0.1", 2), ("OUTSIDE", "broker.example.org", 443)];
        assert_eq!(told, expected.map(|(name, host, port)| (name.to_owned(), host.to_owned(), port)));
    }
}
