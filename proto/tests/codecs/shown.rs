//! Reads what `{:?}` shows of a message, so that the fields of both implementations can be compared by name.

use std::collections::BTreeMap;

/// A shown value.
#[derive(Debug, PartialEq)]
pub(crate) enum Shown {
    /// A structure's fields by name.
    Fields(BTreeMap<String, Shown>),
    List(Vec<Shown>),
    /// `Some(..)`.
    Some(Box<Shown>),
    /// A number, a string, `None`.
    Plain(String),
}

impl Shown {
    pub(crate) fn parse(text: &str) -> Self {
        let mut rest = text;
        let shown = value(&mut rest);
        assert_eq!(rest, "", "all of it was read");
        shown
    }

    /// Whether all fields that `other` has are here and equal. Fields that only newer versions have may be missing there.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fields(a), Self::Fields(b)) => b.iter().all(|(name, b)| a.get(name).is_some_and(|a| a.covers(b))),
            (Self::List(a), Self::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.covers(b)),
            (Self::Some(a), Self::Some(b)) => a.covers(b),
            (a, b) => a == b,
        }
    }
}

fn value(rest: &mut &str) -> Shown {
    if take(rest, "[") {
        let mut list = Vec::new();
        while !take(rest, "]") {
            list.push(value(rest));
            take(rest, ", ");
        }
        return Shown::List(list);
    }
    if rest.starts_with('"') || rest.starts_with("b\"") {
        return Shown::Plain(split(rest, string_end(rest)).to_owned());
    }
    let end = rest.find(['(', ' ', ',', ')', ']', '}']).unwrap_or(rest.len());
    let name = split(rest, end).to_owned();
    if take(rest, "(") {
        let inner = value(rest);
        assert!(take(rest, ")"));
        return if name == "Some" { Shown::Some(Box::new(inner)) } else { inner };
    }
    if rest.starts_with(" {") {
        return structure(&name, rest);
    }
    Shown::Plain(name)
}

fn structure(name: &str, rest: &mut &str) -> Shown {
    assert!(take(rest, " { "));
    let mut fields = BTreeMap::new();
    while !take(rest, " }") {
        // Underscores are set differently around digits and keywords.
        let field = split(rest, rest.find(": ").expect("a field has a name")).replace('_', "");
        assert!(take(rest, ": "));
        // Theirs has two fields more: a map of unknown tagged fields, empty here, and one that only a removed version had.
        if !take(rest, "{}") {
            let value = value(rest);
            if !(field == "partitionmaxbytes" && value == Shown::Plain("0".to_owned())) {
                fields.insert(field, value);
            }
        }
        take(rest, ", ");
    }
    match (name, fields.remove("parts")) {
        ("Chunks", Some(Shown::List(mut pieces))) => {
            assert!(pieces.len() <= 1, "what was read lies in one piece");
            pieces.pop().unwrap_or(Shown::Plain("b\"\"".to_owned()))
        }
        _ => Shown::Fields(fields),
    }
}

fn take(rest: &mut &str, prefix: &str) -> bool {
    match rest.strip_prefix(prefix) {
        Some(after) => {
            *rest = after;
            true
        }
        None => false,
    }
}

fn split<'a>(rest: &mut &'a str, at: usize) -> &'a str {
    let (before, after) = rest.split_at(at);
    *rest = after;
    before
}

fn string_end(text: &str) -> usize {
    let mut escaped = false;
    let open = text.find('"').expect("a string begins") + 1;
    for (i, c) in text.char_indices().skip_while(|(i, _)| *i < open) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    panic!("a string ends");
}
