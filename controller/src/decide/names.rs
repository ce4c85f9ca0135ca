//! What may be a topic's name.

/// Longest name, in bytes: a directory `name-partition.suffix` must fit into a file name.
const MAX_LENGTH: usize = 249;

/// Checks the characters and the length of a topic's name, as Kafka does.
pub fn check_topic_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("Topic name is invalid: it must not be empty".to_owned());
    }
    if name == "." || name == ".." {
        return Err("Topic name is invalid: it must not be '.' or '..'".to_owned());
    }
    if name.len() > MAX_LENGTH {
        return Err(format!(
            "Topic name is invalid: it has {} characters, at most {MAX_LENGTH} are allowed",
            name.len()
        ));
    }
    if let Some(bad) = name.chars().find(|c| !is_legal(*c)) {
        return Err(format!(
            "Topic name is invalid: '{name}' contains {bad:?}; only ASCII letters and digits, '.', '_' and '-' are allowed"
        ));
    }
    Ok(())
}

fn is_legal(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}
