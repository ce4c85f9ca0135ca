//! What the table says of one config, and the checks of a value.

use std::fmt;
use std::net::IpAddr;

/// One config: Kafka's facts about it, what Firn makes of it, and our words for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Definition {
    /// Kafka's name, or one under `firn.`.
    pub name: &'static str,
    /// Type of its values.
    pub kind: Kind,
    /// What holds when nothing sets it.
    pub default: Preset,
    /// Which values are allowed.
    pub check: Check,
    /// How much it matters to most users.
    pub importance: Importance,
    /// Whether it can change while the broker runs. Topic configs always can.
    pub update: Update,
    /// Kafka does not document it.
    pub internal: bool,
    /// What Firn does with it.
    pub effect: Effect,
    /// What it is for.
    pub doc: &'static str,
}

/// The type of a config's values; texts and numbers are those of the wire (DescribeConfigs 3+).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`, in any case.
    Boolean,
    /// Any text.
    String,
    /// 32 bits.
    Int,
    /// 16 bits.
    Short,
    /// 64 bits.
    Long,
    /// A decimal number.
    Double,
    /// Texts separated by commas.
    List,
    /// Name of a Java class.
    Class,
    /// A secret: never shown.
    Password,
}

impl Kind {
    /// Its number in DescribeConfigs responses.
    pub fn wire(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::String => 2,
            Self::Int => 3,
            Self::Short => 4,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
            Self::Class => 8,
            Self::Password => 9,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boolean => "BOOLEAN",
            Self::String => "STRING",
            Self::Int => "INT",
            Self::Short => "SHORT",
            Self::Long => "LONG",
            Self::Double => "DOUBLE",
            Self::List => "LIST",
            Self::Class => "CLASS",
            Self::Password => "PASSWORD",
        })
    }
}

/// What holds when nothing sets a config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// This value.
    Value(&'static str),
    /// Nothing: the config is unset.
    Null,
    /// It has to be set.
    Required,
}

impl Preset {
    /// The value, if there is one.
    pub fn value(self) -> Option<&'static str> {
        match self {
            Self::Value(value) => Some(value),
            Self::Null | Self::Required => None,
        }
    }
}

/// How much a config matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Importance {
    /// Look at it.
    High,
    /// Good to know.
    Medium,
    /// Rarely touched.
    Low,
}

/// Whether a broker config can change while the broker runs (KIP-226).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// It cannot.
    ReadOnly,
    /// For one broker at a time.
    PerBroker,
    /// For one broker or for all.
    ClusterWide,
}

/// What Firn does with a config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// What it says.
    Acted,
    /// Nothing, and that is fine, because …
    WithoutEffect(&'static str),
    /// It does not take another value than the default, because …
    Refused(&'static str),
}

/// Which values of a config's type are allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Check {
    /// All.
    Any,
    /// Numbers from here.
    AtLeast(i64),
    /// Numbers from, to, inclusive.
    Between(i64, i64),
    /// Numbers from, to, inclusive, or the third.
    BetweenOr(i64, i64, i64),
    /// Decimal numbers from, to, inclusive.
    Within(f64, f64),
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// One of these texts, in any case.
    OneOfAnyCase(&'static [&'static str]),
    /// A list of any of these texts.
    EachOf(&'static [&'static str]),
    /// A list of any of these texts that is not empty.
    SomeOf(&'static [&'static str]),
    /// A text or list that is not empty.
    NotEmpty,
    /// `partition:broker` pairs, or `*`.
    Throttled,
    /// `address:limit` pairs separated by commas.
    PerIp,
}

/// Broker configs that a running Kafka broker takes up, and Firn reads when it starts.
const READ_AT_START: &[&str] = &["listener.security.protocol.map", "listeners"];

impl Definition {
    /// Whether the config can change while Firn runs: as in Kafka, but for what is read once.
    pub fn alterable(&self) -> Update {
        if READ_AT_START.contains(&self.name) { Update::ReadOnly } else { self.update }
    }

    /// Whether its value must not be shown.
    pub fn is_sensitive(&self) -> bool {
        self.kind == Kind::Password
    }

    /// Whether `value` is of the config's type, allowed, and, where Firn refuses the config, the default.
    ///
    /// # Errors
    /// The reason, in words that can stand behind "Invalid value … for configuration …: ".
    pub fn check(&self, value: &str) -> Result<(), String> {
        let value = value.trim();
        if let Effect::Refused(reason) = self.effect
            && self.default.value() != Some(value)
        {
            return Err(reason.to_owned());
        }
        match self.kind {
            Kind::Boolean => one_of(&value.to_ascii_lowercase(), &["true", "false"]),
            Kind::Int => self.check_whole(value, i64::from(i32::MIN), i64::from(i32::MAX)),
            Kind::Short => self.check_whole(value, i64::from(i16::MIN), i64::from(i16::MAX)),
            Kind::Long => self.check_whole(value, i64::MIN, i64::MAX),
            Kind::Double => self.check_decimal(value),
            Kind::List => self.check_list(value),
            Kind::String | Kind::Class | Kind::Password => self.check_text(value),
        }
    }

    /// `value` as Kafka shows it: trimmed, numbers and booleans in their usual form, lists without spaces
    /// and duplicates.
    pub fn normal(&self, value: &str) -> String {
        let value = value.trim();
        match self.kind {
            Kind::Boolean => value.to_ascii_lowercase(),
            Kind::Int | Kind::Short | Kind::Long => match value.parse::<i64>() {
                Ok(number) => number.to_string(),
                Err(_) => value.to_owned(),
            },
            Kind::Double => match value.parse::<f64>() {
                Ok(number) => format!("{number:?}").replace('e', "E"),
                Err(_) => value.to_owned(),
            },
            Kind::List => {
                let mut items: Vec<&str> = Vec::new();
                for item in list(value) {
                    if !items.contains(&item) {
                        items.push(item);
                    }
                }
                items.join(",")
            }
            Kind::String | Kind::Class | Kind::Password => value.to_owned(),
        }
    }

    fn check_whole(&self, value: &str, least: i64, most: i64) -> Result<(), String> {
        let number: i64 = value.parse().map_err(|_| format!("not a whole number of type {}", self.kind))?;
        if !(least..=most).contains(&number) {
            return Err(format!("not a number of type {}", self.kind));
        }
        let (from, to, or) = match self.check {
            Check::AtLeast(from) => (from, most, None),
            Check::Between(from, to) => (from, to, None),
            Check::BetweenOr(from, to, or) => (from, to, Some(or)),
            Check::Any
            | Check::Within(..)
            | Check::OneOf(_)
            | Check::OneOfAnyCase(_)
            | Check::EachOf(_)
            | Check::SomeOf(_)
            | Check::NotEmpty
            | Check::Throttled
            | Check::PerIp => (least, most, None),
        };
        if Some(number) == or || (from..=to).contains(&number) {
            Ok(())
        } else if number < from {
            Err(format!("must be at least {from}"))
        } else {
            Err(format!("must be at most {to}"))
        }
    }

    fn check_decimal(&self, value: &str) -> Result<(), String> {
        let number: f64 = value.parse().map_err(|_| format!("not a number of type {}", self.kind))?;
        match self.check {
            Check::Within(from, to) if !(from..=to).contains(&number) => {
                Err(format!("must be between {from} and {to}"))
            }
            _ => Ok(()),
        }
    }

    fn check_list(&self, value: &str) -> Result<(), String> {
        let items: Vec<&str> = list(value).collect();
        if items.is_empty() && matches!(self.check, Check::SomeOf(_) | Check::NotEmpty) {
            return Err("must not be empty".to_owned());
        }
        match self.check {
            Check::EachOf(allowed) | Check::SomeOf(allowed) => items.iter().try_for_each(|item| one_of(item, allowed)),
            Check::Throttled => check_throttled(&items),
            _ => Ok(()),
        }
    }

    fn check_text(&self, value: &str) -> Result<(), String> {
        match self.check {
            Check::OneOf(allowed) => one_of(value, allowed),
            Check::OneOfAnyCase(allowed) => one_of(&value.to_ascii_uppercase(), allowed),
            Check::NotEmpty if value.is_empty() => Err("must not be empty".to_owned()),
            Check::PerIp => per_ip(value).map(drop),
            _ => Ok(()),
        }
    }
}

/// The items of a list value.
pub(super) fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn one_of(value: &str, allowed: &[&str]) -> Result<(), String> {
    if allowed.contains(&value) { Ok(()) } else { Err(format!("must be one of {}", allowed.join(", "))) }
}

fn check_throttled(items: &[&str]) -> Result<(), String> {
    let pair = |item: &&str| {
        item.split_once(':').is_some_and(|(partition, broker)| {
            let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            number(partition) && number(broker)
        })
    };
    if items == ["*"] || items.iter().all(pair) {
        Ok(())
    } else {
        Err("must be * or partition:broker pairs".to_owned())
    }
}

/// Parses `address:limit,…`. Addresses are numbers: what a name stands for may change, and asking costs every connection.
pub(super) fn per_ip(value: &str) -> Result<Vec<(IpAddr, usize)>, String> {
    list(value)
        .map(|pair| {
            let (address, limit) = pair.rsplit_once(':').ok_or("must be address:limit pairs")?;
            let limit = limit.trim().parse().map_err(|_| format!("{limit} is not a limit"))?;
            let address = address.trim().trim_start_matches('[').trim_end_matches(']');
            let address: IpAddr = address.parse().map_err(|_| format!("{address} is not an IP address"))?;
            Ok((address.to_canonical(), limit))
        })
        .collect()
}
