//! Where every target begins: with bytes that the real encoders write.

#![allow(dead_code, reason = "each target takes what it needs")]

use std::path::Path;

/// Puts `seeds` into the folder that `FIRN_FUZZ_SEEDS` names, from which the fuzzer then reads; nothing without it.
pub fn plant(seeds: impl IntoIterator<Item = Vec<u8>>) {
    let Some(folder) = std::env::var_os("FIRN_FUZZ_SEEDS") else { return };
    for (index, seed) in seeds.into_iter().enumerate() {
        std::fs::write(Path::new(&folder).join(format!("seed-{index:04}")), seed).expect("the corpus can be written");
    }
}

/// Bytes of length `length` that differ, and compress a little.
pub fn filling(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * at / 7) as u8).collect()
}
