//! Clients in numbers: however many press, memory stays inside the budget, and who behaves is served.

use super::stand::{Stand, Witness};
use std::time::Duration;

/// Many connections that say nothing cost next to nothing, and end with the process.
#[tokio::test]
async fn hundreds_of_silent_connections_are_cheap_and_do_not_hold_up_the_end() {
    let mut stand = Stand::firn(|firn| firn).await;
    let mut witness = Witness::at(stand.address(), &[]).await;
    let before = stand.running().expect("our own").peak_resident_bytes().expect("known");
    let mut silent = Vec::new();
    for _ in 0..500 {
        let mut client = stand.client().await;
        client.send_raw(b"\0\0\0\x20half").await.expect("sent");
        silent.push(client);
    }
    witness.is_well().await;
    let grown = stand.running().expect("our own").peak_resident_bytes().expect("known") - before;
    assert!(grown < 48 << 20, "500 connections took {} MiB", grown >> 20);
    let (status, _) = stand.terminate(Duration::from_secs(5)).await;
    assert!(status.success(), "{status}");
}
