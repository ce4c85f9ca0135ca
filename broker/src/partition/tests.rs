//! The parts together: handle, journal, writer, recovery, on the simulated disk.

mod crash;
mod faults;
mod full;
mod life;
mod log;
mod model;
mod threads;
mod world;
