//! The parts together: handle, journal, writer, recovery, on the simulated disk.

mod log;
mod threads;
mod world;
