//! The parts together: handle, journal, writer, recovery, on the simulated disk.

mod agreement;
mod crash;
mod faults;
mod full;
mod life;
mod log;
mod model;
mod proposals;
mod replicas;
mod threads;
mod world;
