//! The parts together: handle, journal, writer, recovery, on the simulated disk.

mod crash;
mod log;
mod world;
