//! Just enough of Rust's lexical structure to hold a rule against code without being fooled by comments
//! and strings: what is code, where functions begin and end, and what only tests compile.

use std::ops::Range;

/// A function and the lines it covers, its signature included (1-based, both inclusive).
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) first: usize,
    pub(crate) last: usize,
}

impl Function {
    pub(crate) fn lines(&self) -> usize {
        self.last - self.first + 1
    }
}

/// One file with its comments and literals blanked out. Lines and byte positions stay as they were.
pub(crate) struct Code {
    text: Vec<u8>,
}

impl Code {
    pub(crate) fn of(source: &str) -> Code {
        Code { text: blank(source.as_bytes()) }
    }

    /// Lines of the file, without those of inline test modules.
    pub(crate) fn production_lines(&self) -> usize {
        let all = self.line_of(self.text.len());
        let tests = self.test_modules();
        all - tests.iter().map(|r| self.line_of(r.end) - self.line_of(r.start) + 1).sum::<usize>()
    }

    /// Line numbers (1-based) on which `word` stands as a whole word.
    pub(crate) fn lines_with(&self, word: &str) -> Vec<usize> {
        self.positions(word).into_iter().map(|at| self.line_of(at)).collect()
    }

    /// Whether the path `name::` is used, or imported by `use name;` or in `extern crate`, as a crate: not as
    /// a later segment of another path.
    pub(crate) fn names_crate(&self, name: &str) -> bool {
        self.positions(name).into_iter().any(|at| {
            let before = self.text[..at].trim_ascii_end();
            let after = self.text[at + name.len()..].trim_ascii_start();
            let later_segment = before.ends_with(b"::") && !self.follows_use(before);
            !later_segment && (after.starts_with(b"::") || (after.starts_with(b";") && before.ends_with(b"use")))
        })
    }

    fn follows_use(&self, before: &[u8]) -> bool {
        before[..before.len() - 2].trim_ascii_end().ends_with(b"use")
    }

    /// Macro calls `name!` that stand in code, as line numbers.
    pub(crate) fn macro_calls(&self, name: &str) -> Vec<usize> {
        let called = |at: &usize| self.text.get(at + name.len()) == Some(&b'!');
        self.positions(name).into_iter().filter(called).map(|at| self.line_of(at)).collect()
    }

    /// `allow` and `expect` attributes that give no reason, as line numbers.
    pub(crate) fn lints_without_reason(&self) -> Vec<usize> {
        let mut found = Vec::new();
        for lint in ["allow", "expect"] {
            for at in self.positions(lint) {
                let before = self.text[..at].trim_ascii_end();
                let opened = before.ends_with(b"#[") || before.ends_with(b"#![");
                let end = self.text[at..].iter().position(|&b| b == b']').map_or(self.text.len(), |n| at + n);
                let inside = String::from_utf8_lossy(&self.text[at..end]);
                if opened && !inside.contains("reason =") {
                    found.push(self.line_of(at));
                }
            }
        }
        found
    }

    /// Every function with a body that is not inside an inline test module.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let tests = self.test_modules();
        let mut found = Vec::new();
        for at in self.positions("fn") {
            if tests.iter().any(|r| r.contains(&at)) {
                continue;
            }
            let rest = self.text[at + 2..].trim_ascii_start();
            let name: Vec<u8> = rest.iter().copied().take_while(|&b| is_word(b)).collect();
            // A function pointer type has no name, a declaration in a trait no body.
            if name.is_empty() {
                continue;
            }
            if let Some(body) = self.body_after(at) {
                found.push(Function {
                    name: String::from_utf8_lossy(&name).into_owned(),
                    first: self.line_of(at),
                    last: self.line_of(body.end - 1),
                });
            }
        }
        found
    }

    /// Modules that only tests compile: `#[cfg(test)] mod name { .. }`.
    fn test_modules(&self) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        for at in self.positions("cfg") {
            let rest = String::from_utf8_lossy(&self.text[at..(at + 200).min(self.text.len())]).into_owned();
            let Some(after) = rest.strip_prefix("cfg(test)]") else { continue };
            if after.trim_start().starts_with("mod ")
                && let Some(body) = self.body_after(at + 10)
            {
                found.push(at..body.end);
            }
        }
        found
    }

    /// The braces that open first after `at` outside of parentheses; nothing if a `;` comes before them.
    fn body_after(&self, at: usize) -> Option<Range<usize>> {
        let mut depth = 0usize;
        let open = at
            + self.text[at..].iter().position(|&b| {
                match b {
                    b'(' | b'[' => depth += 1,
                    b')' | b']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                depth == 0 && (b == b'{' || b == b';')
            })?;
        if self.text[open] == b';' {
            return None;
        }
        let mut braces = 0usize;
        for (n, &b) in self.text[open..].iter().enumerate() {
            match b {
                b'{' => braces += 1,
                b'}' => braces -= 1,
                _ => {}
            }
            if braces == 0 {
                return Some(open..open + n + 1);
            }
        }
        None
    }

    fn positions(&self, word: &str) -> Vec<usize> {
        let wanted = word.as_bytes();
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(n) = self.text[at..].windows(wanted.len()).position(|w| w == wanted) {
            let start = at + n;
            let end = start + wanted.len();
            let alone =
                (start == 0 || !is_word(self.text[start - 1])) && self.text.get(end).is_none_or(|&b| !is_word(b));
            if alone {
                found.push(start);
            }
            at = end;
        }
        found
    }

    fn line_of(&self, at: usize) -> usize {
        1 + self.text[..at.min(self.text.len())].iter().filter(|&&b| b == b'\n').count()
    }
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

/// Replaces comments and the insides of literals by spaces; line breaks stay.
fn blank(source: &[u8]) -> Vec<u8> {
    let mut out = source.to_vec();
    let mut at = 0;
    while at < source.len() {
        let end = match source[at] {
            b'/' if source[at..].starts_with(b"//") => end_of_line(source, at),
            b'/' if source[at..].starts_with(b"/*") => end_of_block_comment(source, at),
            b'"' => end_of_string(source, at),
            b'r' | b'b' | b'c' if at == 0 || !is_word(source[at - 1]) => match end_of_prefixed_literal(source, at) {
                Some(end) => end,
                None => {
                    at += 1;
                    continue;
                }
            },
            b'\'' => end_of_char(source, at),
            _ => {
                at += 1;
                continue;
            }
        };
        for b in &mut out[at..end] {
            if *b != b'\n' {
                *b = b' ';
            }
        }
        at = end;
    }
    out
}

fn end_of_line(source: &[u8], at: usize) -> usize {
    source[at..].iter().position(|&b| b == b'\n').map_or(source.len(), |n| at + n)
}

/// Block comments nest.
fn end_of_block_comment(source: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at < source.len() {
        if source[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if source[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    source.len()
}

fn end_of_string(source: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    while at < source.len() {
        match source[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    source.len()
}

/// `r"…"`, `r#"…"#`, `b"…"`, `br"…"`, `c"…"`, `b'…'`; nothing if the letter begins something else.
fn end_of_prefixed_literal(source: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    while at < source.len() && at < start + 2 && matches!(source[at], b'b' | b'r' | b'c') {
        at += 1;
    }
    let raw = source[start..at].contains(&b'r');
    let hashes = source[at..].iter().take_while(|&&b| b == b'#').count();
    match source.get(at + hashes) {
        Some(b'"') if raw => {
            let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
            let body = at + hashes + 1;
            let found = source[body..].windows(close.len()).position(|w| w == close);
            Some(found.map_or(source.len(), |n| body + n + close.len()))
        }
        Some(b'"') if hashes == 0 => Some(end_of_string(source, at)),
        Some(b'\'') if hashes == 0 && !raw => Some(end_of_char(source, at)),
        _ => None,
    }
}

/// The end of a character literal, or just past the quote of a lifetime.
fn end_of_char(source: &[u8], quote: usize) -> usize {
    match source.get(quote + 1) {
        Some(b'\\') => {
            let from = quote + 3; // past the escaped character, which may be a quote
            source.get(from..).and_then(|s| s.iter().position(|&b| b == b'\'')).map_or(source.len(), |n| from + n + 1)
        }
        Some(&first) => {
            let width = match first {
                0x00..0x80 => 1,
                0x80..0xE0 => 2,
                0xE0..0xF0 => 3,
                _ => 4,
            };
            let close = quote + 1 + width;
            if source.get(close) == Some(&b'\'') { close + 1 } else { quote + 1 }
        }
        None => source.len(),
    }
}
