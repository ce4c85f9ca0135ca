//! Reads `facts.txt` and makes messages from it: a second, independent reading of the schemas. What it writes is canonical: tagged fields
//! in order, those with their default left out.

use proto::wire::VersionRange;

use crate::random::Random;

const TEXTS: &[&str] =
    &["", "a", "topic-1", "größe", "雪が積もる", "consumer.group_42", "a name that is somewhat longer than the others"];

/// A message's schema.
pub(crate) struct Schema {
    pub(crate) name: String,
    pub(crate) versions: VersionRange,
    first_flexible: Option<i16>,
    fields: Vec<Field>,
}

struct Field {
    ty: String,
    versions: VersionRange,
    nullable: VersionRange,
    tag: Option<u32>,
    default: String,
    fields: Vec<Field>,
}

/// All schemas.
pub(crate) fn schemas() -> Vec<Schema> {
    let mut lines = include_str!("facts.txt").lines().peekable();
    let mut schemas = Vec::new();
    while let Some(line) = lines.next() {
        let [_, name, versions, flexible] = words(line);
        let fields = fields(&mut lines, 1);
        let first_flexible = (flexible != "-").then(|| flexible.parse().expect("a version"));
        schemas.push(Schema { name: name.to_owned(), versions: range(versions), first_flexible, fields });
    }
    schemas
}

fn words<const N: usize>(line: &str) -> [&str; N] {
    line.split_whitespace().collect::<Vec<_>>().try_into().unwrap_or_else(|_| panic!("{line}"))
}

fn fields<'a>(lines: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>, depth: usize) -> Vec<Field> {
    let mut list = Vec::new();
    while let Some(line) = lines.next_if(|l| !l.starts_with('=') && l.len() - l.trim_start().len() == depth) {
        let [_, ty, versions, nullable, tag, default] = words(line);
        list.push(Field {
            ty: ty.to_owned(),
            versions: range(versions),
            nullable: range(nullable),
            tag: (tag != "-").then(|| tag.parse().expect("a tag")),
            default: default.to_owned(),
            fields: fields(lines, depth + 1),
        });
    }
    list
}

fn range(text: &str) -> VersionRange {
    let number = |s: &str| s.parse::<i16>().expect("a version");
    match (text, text.split_once('-')) {
        ("-", _) => VersionRange::NONE,
        (_, Some((min, max))) => VersionRange::new(number(min), number(max)),
        (_, None) => VersionRange::new(number(text.strip_suffix('+').expect("an open range")), i16::MAX),
    }
}

impl Schema {
    /// A message in `version`; `fill` is how many elements an array has at most.
    pub(crate) fn make(&self, random: &mut Random, version: i16, fill: usize) -> Vec<u8> {
        let flexible = self.first_flexible.is_some_and(|first| version >= first);
        let mut maker = Maker { random, version, flexible, fill, defaults: false };
        let mut out = Vec::new();
        maker.structure(&self.fields, &mut out);
        out
    }
}

struct Maker<'a> {
    random: &'a mut Random,
    version: i16,
    flexible: bool,
    fill: usize,
    /// Write defaults instead of random values.
    defaults: bool,
}

impl Maker<'_> {
    fn structure(&mut self, fields: &[Field], out: &mut Vec<u8>) {
        let here = fields.iter().filter(|f| f.versions.contains(self.version));
        let (mut tagged, plain): (Vec<&Field>, Vec<&Field>) = here.partition(|f| f.tag.is_some());
        for field in plain {
            self.field(field, out);
        }
        if !self.flexible {
            return;
        }
        tagged.sort_by_key(|f| f.tag);
        let mut written = Vec::new();
        for field in tagged {
            let (mut value, mut default) = (Vec::new(), Vec::new());
            self.field(field, &mut value);
            let outer = std::mem::replace(&mut self.defaults, true);
            self.field(field, &mut default);
            self.defaults = outer;
            if value != default {
                written.push((field.tag.expect("only tagged fields are here"), value));
            }
        }
        uvarint(out, written.len() as u64);
        for (tag, value) in written {
            uvarint(out, tag.into());
            uvarint(out, value.len() as u64);
            out.extend(value);
        }
    }

    fn field(&mut self, field: &Field, out: &mut Vec<u8>) {
        let nullable = field.nullable.contains(self.version);
        let null = if self.defaults { field.default == "null" } else { nullable && self.random.below(4) == 0 };
        let compact = self.flexible;
        match field.ty.as_str() {
            "struct" => {
                if nullable {
                    // Found by holding it against Kafka itself: null is 0 in a tagged field.
                    out.push(if !null {
                        1
                    } else if field.tag.is_some() {
                        0
                    } else {
                        0xff
                    });
                }
                if !null {
                    self.structure(&field.fields, out);
                }
            }
            "string" if null => length(out, compact, 2, None),
            _ if null => length(out, compact, 4, None),
            "bytes" | "records" => {
                let n = if self.defaults { 0 } else { [0, 1, 7, 200, 400][self.random.below(5)] };
                length(out, compact, 4, Some(n));
                for _ in 0..n {
                    out.push(self.random.next() as u8);
                }
            }
            ty => match ty.strip_prefix("[]") {
                Some(element) => {
                    let n = if self.defaults { 0 } else { self.random.below(self.fill + 1) };
                    length(out, compact, 4, Some(n));
                    for _ in 0..n {
                        match element {
                            "struct" => self.structure(&field.fields, out),
                            element => self.value(element, "-", out),
                        }
                    }
                }
                None => self.value(ty, &field.default, out),
            },
        }
    }

    fn value(&mut self, ty: &str, default: &str, out: &mut Vec<u8>) {
        let size = match ty {
            "bool" | "int8" => 1,
            "int16" | "uint16" => 2,
            "int32" => 4,
            "int64" => 8,
            "uuid" if self.defaults => return out.extend([0; 16]),
            "uuid" => return out.extend((0..16).map(|_| self.random.next() as u8)),
            "float64" => {
                let value = if self.defaults { 0.0 } else { self.random.next() as i64 as f64 / 1e6 };
                return out.extend(value.to_be_bytes());
            }
            "string" => {
                let text = match (self.defaults, default) {
                    (false, _) => TEXTS[self.random.below(TEXTS.len())],
                    (true, "-") => "",
                    (true, text) => text,
                };
                length(out, self.flexible, 2, Some(text.len()));
                return out.extend(text.as_bytes());
            }
            ty => panic!("{ty}"),
        };
        let value = if self.defaults {
            match (default, default.strip_prefix("0x")) {
                ("-" | "false", _) => 0,
                ("true", _) => 1,
                (_, Some(hex)) => i64::from_str_radix(hex, 16).expect("a number"),
                (text, None) => text.parse().expect("a number"),
            }
        } else if ty == "bool" {
            self.random.below(2) as i64
        } else {
            match self.random.below(4) {
                0 => -1,
                1 => self.random.below(100) as i64,
                _ => self.random.next() as i64,
            }
        };
        out.extend(&value.to_be_bytes()[8 - size..]);
    }
}

/// A length in its compact form or in `size` bytes.
fn length(out: &mut Vec<u8>, compact: bool, size: usize, n: Option<usize>) {
    match n {
        _ if compact => uvarint(out, n.map_or(0, |n| n as u64 + 1)),
        Some(n) => out.extend(&(n as u64).to_be_bytes()[8 - size..]),
        None => out.extend(&[0xff; 8][..size]),
    }
}

fn uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
