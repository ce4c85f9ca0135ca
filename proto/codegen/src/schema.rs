//! Kafka's message schemas, as far as codecs need them.

use std::{fs, io, path::Path};

use serde::Deserialize;

/// A schema file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Message {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: Kind,
    pub(crate) api_key: Option<i16>,
    pub(crate) valid_versions: String,
    #[serde(default)]
    pub(crate) flexible_versions: Option<String>,
    #[serde(default)]
    pub(crate) latest_version_unstable: bool,
    #[serde(default)]
    pub(crate) fields: Vec<Field>,
    #[serde(default)]
    pub(crate) common_structs: Vec<CommonStruct>,
    /// Kafka's version, from the name of the folder, which is the jar's.
    #[serde(skip)]
    pub(crate) release: String,
}

/// What a schema is for.
#[derive(Debug, Deserialize, PartialEq, Eq, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Request,
    Response,
    Header,
    Data,
    CoordinatorKey,
    CoordinatorValue,
}

/// A structure that several fields share.
#[derive(Debug, Deserialize)]
pub(crate) struct CommonStruct {
    pub(crate) name: String,
    pub(crate) versions: String,
    pub(crate) fields: Vec<Field>,
}

/// A field of a message or structure.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Field {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) ty: String,
    versions: Option<String>,
    nullable_versions: Option<String>,
    tagged_versions: Option<String>,
    pub(crate) tag: Option<u32>,
    #[serde(default)]
    pub(crate) default: serde_json::Value,
    #[serde(default)]
    pub(crate) ignorable: bool,
    flexible_versions: Option<String>,
    #[serde(default)]
    pub(crate) fields: Vec<Field>,
}

/// Versions, both ends inclusive; empty when `max < min`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) min: i16,
    pub(crate) max: i16,
}

impl Versions {
    pub(crate) const NONE: Self = Self { min: 0, max: -1 };

    /// Parses `none`, `3`, `3-5` and `3+`.
    pub(crate) fn parse(text: &str) -> Self {
        let number = |s: &str| s.parse::<i16>().expect("a version is a number");
        match text {
            "none" => Self::NONE,
            t => match t.strip_suffix('+') {
                Some(min) => Self { min: number(min), max: i16::MAX },
                None => match t.split_once('-') {
                    Some((min, max)) => Self { min: number(min), max: number(max) },
                    None => Self { min: number(t), max: number(t) },
                },
            },
        }
    }

    pub(crate) fn is_empty(self) -> bool {
        self.max < self.min
    }

    pub(crate) fn and(self, other: Self) -> Self {
        let both = Self { min: self.min.max(other.min), max: self.max.min(other.max) };
        if both.is_empty() { Self::NONE } else { both }
    }

    pub(crate) fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }
}

impl Message {
    pub(crate) fn versions(&self) -> Versions {
        Versions::parse(&self.valid_versions)
    }

    /// The first version with compact forms and tagged fields, if any; it may lie below the valid ones.
    pub(crate) fn first_flexible(&self) -> Option<i16> {
        let versions = Versions::parse(self.flexible_versions.as_deref().unwrap_or("none"));
        (!versions.is_empty()).then_some(versions.min)
    }
}

impl Field {
    pub(crate) fn versions(&self) -> Versions {
        assert!(self.flexible_versions.is_none(), "{}: only the request header mixes forms", self.name);
        match (&self.versions, &self.tagged_versions) {
            (Some(versions), Some(tagged)) => {
                assert_eq!(versions, tagged, "{}: tagged in all its versions or in none", self.name);
                Versions::parse(versions)
            }
            (Some(versions), None) | (None, Some(versions)) => Versions::parse(versions),
            (None, None) => panic!("{} has no versions", self.name),
        }
    }

    pub(crate) fn nullable_versions(&self) -> Versions {
        self.nullable_versions.as_deref().map_or(Versions::NONE, Versions::parse)
    }

    pub(crate) fn is_tagged(&self) -> bool {
        self.tag.is_some()
    }
}

/// Reads every schema in the folders below `root`, sorted by name.
pub(crate) fn read_all(root: &Path) -> io::Result<Vec<Message>> {
    let mut messages = Vec::new();
    for folder in fs::read_dir(root)? {
        let folder = folder?;
        if !folder.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(folder.path())? {
            let path = file?.path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let text = without_comments(&fs::read_to_string(&path)?);
            let mut message: Message =
                serde_json::from_str(&text).map_err(|e| io::Error::other(format!("{}: {e}", path.display())))?;
            let jar = folder.file_name().to_string_lossy().into_owned();
            message.release = jar.rsplit('-').next().unwrap_or_default().to_owned();
            messages.push(message);
        }
    }
    messages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(messages)
}

/// Schemas are JSON with `//` comments, each on a line of its own.
fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}
