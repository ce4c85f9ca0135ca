//! Small file systems of a test's own.

use std::path::{Path, PathBuf};

/// Set where mounting must work, so that nobody takes skipped tests for passed ones.
const NEEDS_MOUNT: &str = "FIRN_TEST_NEEDS_MOUNT";

/// Mounts a file system of its own in memory; nothing where that is not allowed, which is said, or fails the test if
/// `FIRN_TEST_NEEDS_MOUNT` is set.
pub(crate) struct Mount(PathBuf);

impl Mount {
    pub(crate) fn tmpfs(at: &Path, megabytes: u32) -> Option<Mount> {
        std::fs::create_dir_all(at).expect("a directory");
        let size = format!("size={megabytes}m");
        if mount(&["-t", "tmpfs", "-o", &size, "firn-test", &at.display().to_string()]) {
            return Some(Mount(at.to_owned()));
        }
        assert!(
            std::env::var_os(NEEDS_MOUNT).is_none(),
            "{NEEDS_MOUNT} is set, and nothing can be mounted at {}",
            at.display()
        );
        println!("SKIPPED: mounting a small file system needs root");
        None
    }

    /// Makes it read-only or writable again.
    pub(crate) fn set(&self, option: &str) {
        assert!(mount(&["-o", &format!("remount,{option}"), &self.0.display().to_string()]), "remounted {option}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a process that a failed test leaves behind may still hold it.
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(arguments: &[&str]) -> bool {
    let mount = std::process::Command::new("mount").args(arguments).stderr(std::process::Stdio::null()).status();
    mount.is_ok_and(|status| status.success())
}
