mod core;
mod faults;
mod lookups;
mod reading;
mod sharing;
mod walking;
mod world;
