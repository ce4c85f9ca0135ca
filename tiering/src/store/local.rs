//! What a store in a local directory leaves behind when its process is killed.

use std::io;
use std::path::Path;
use std::time::SystemTime;

/// Removes uploads below `root` that were cut off before `before`: an object is written as `NAME#NUMBER` and renamed when
/// it is whole, and no listing of the store shows what was not. Answers how many there were.
///
/// # Errors
/// The first directory that cannot be read or file that cannot be removed; what vanishes meanwhile is no error.
pub fn remove_unfinished(root: &Path, before: SystemTime) -> io::Result<usize> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let mut removed = 0;
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if gone(&error) => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let details = match entry.metadata() {
                Ok(details) => details,
                Err(error) if gone(&error) => continue,
                Err(error) => return Err(error),
            };
            if details.is_dir() {
                left.push(entry.path());
            } else if is_unfinished(&entry.file_name().to_string_lossy()) && details.modified()? < before {
                match std::fs::remove_file(entry.path()) {
                    Ok(()) => removed += 1,
                    Err(error) if gone(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(removed)
}

fn is_unfinished(name: &str) -> bool {
    let number = name.rsplit_once('#').map(|(_, number)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn only_old_unfinished_uploads_go() {
        let home = tempfile::tempdir().expect("a directory");
        let deep = home.path().join("cluster/aa");
        std::fs::create_dir_all(&deep).expect("made");
        let names = ["1.seg", "1.seg#1", "2.seg#23", "odd#name", "new.seg#1"];
        for name in names {
            let file = std::fs::File::create(deep.join(name)).expect("made");
            let at = if name.starts_with("new") { 2_000 } else { 1_000 };
            file.set_modified(UNIX_EPOCH + Duration::from_secs(at)).expect("set");
        }
        let before = UNIX_EPOCH + Duration::from_secs(1_500);
        assert_eq!(remove_unfinished(home.path(), before).expect("readable"), 2);
        let mut left: Vec<_> = std::fs::read_dir(&deep).expect("there").map(|e| e.expect("one").file_name()).collect();
        left.sort();
        assert_eq!(left, ["1.seg", "new.seg#1", "odd#name"]);
        assert_eq!(remove_unfinished(&home.path().join("nothing"), before).expect("no error"), 0);
    }
}
