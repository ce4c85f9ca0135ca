//! The seams to the machine: wall clock, randomness, network, and where tasks run.
//!
//! Nothing below `main` reads the clock, draws a random number, opens a socket or starts a thread by
//! itself: it is handed one of these. Production takes [`SystemClock`], [`SystemEntropy`],
//! [`TcpNetwork`] and the runtimes of `main`; tests and the simulation take [`ManualClock`],
//! [`SeededEntropy`] and networks of their own. Waiting is done with tokio's timers, which tests can
//! pause.

mod clock;
mod net;
mod spawn;

pub use clock::{Clock, Entropy, ManualClock, SeededEntropy, SystemClock, SystemEntropy};
pub use net::{Acceptor, Duplex, Listener, Network, ReadHalf, Stream, TcpNetwork, WriteHalf};
pub use spawn::{Blocking, Spawner};
