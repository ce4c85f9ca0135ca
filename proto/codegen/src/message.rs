//! One Rust file per message: its structures, how they are read and how they are written.

use std::{collections::BTreeMap, fmt::Write};

use crate::{
    names,
    schema::{Field, Kind, Message, Versions},
};

/// A field's type in the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Type {
    /// A type of fixed size; the names in the schema and in the codec primitives.
    Fixed(&'static str),
    String,
    Bytes,
    Records,
    Struct(String),
    Array(Box<Type>),
}

impl Type {
    fn parse(name: &str) -> Self {
        if let Some(element) = name.strip_prefix("[]") {
            return Self::Array(Box::new(Self::parse(element)));
        }
        match name {
            "bool" => Self::Fixed("bool"),
            "int8" => Self::Fixed("i8"),
            "int16" => Self::Fixed("i16"),
            "uint16" => Self::Fixed("u16"),
            "int32" => Self::Fixed("i32"),
            "int64" => Self::Fixed("i64"),
            "float64" => Self::Fixed("f64"),
            "uuid" => Self::Fixed("uuid"),
            "string" => Self::String,
            "bytes" => Self::Bytes,
            "records" => Self::Records,
            name => {
                assert!(name.starts_with(char::is_uppercase), "unknown type {name}");
                Self::Struct(name.to_owned())
            }
        }
    }
}

/// A structure to write: the message itself or one that its fields name.
struct Struct<'a> {
    name: String,
    fields: &'a [Field],
    /// The versions in which it can occur.
    range: Versions,
}

/// All that is written into one file.
struct Writer<'a> {
    message: &'a Message,
    structs: Vec<Struct<'a>>,
    out: String,
}

/// The source text of the file for `message`.
pub(crate) fn source(message: &Message) -> String {
    let mut w = Writer { message, structs: Vec::new(), out: String::new() };
    w.collect(&message.name, &message.fields, message.versions());
    w.header();
    let order: Vec<usize> = (0..w.structs.len()).collect();
    for i in order {
        w.structure(i);
    }
    w.out
}

impl<'a> Writer<'a> {
    /// Lists the message, then what its fields are made of, each before what it contains.
    fn collect(&mut self, name: &str, fields: &'a [Field], range: Versions) {
        if let Some(known) = self.structs.iter().find(|s| s.name == name) {
            assert!(std::ptr::eq(known.fields, fields), "two structures are named {name}");
            return;
        }
        self.structs.push(Struct { name: name.to_owned(), fields, range });
        for field in fields {
            let range = range.and(field.versions());
            let Some(inner) = struct_name(&Type::parse(&field.ty)) else { continue };
            if range.is_empty() {
                continue;
            }
            let message = self.message;
            match message.common_structs.iter().find(|c| c.name == inner) {
                Some(common) => {
                    let range = message.versions().and(Versions::parse(&common.versions));
                    self.collect(&inner, &common.fields, range);
                }
                None => self.collect(&inner, &field.fields, range),
            }
        }
    }

    fn line(&mut self, text: impl AsRef<str>) {
        self.out.push_str(text.as_ref());
        self.out.push('\n');
    }

    fn header(&mut self) {
        let m = self.message;
        let key = match (m.kind, m.api_key) {
            (Kind::Request | Kind::Response, Some(key)) => format!("API key {key}, "),
            (_, Some(key)) => format!("record type {key}, "),
            _ => String::new(),
        };
        let flex = match m.first_flexible() {
            Some(v) if v <= m.versions().max => format!("flexible from {v}"),
            _ => "never flexible".to_owned(),
        };
        let versions = show(m.versions());
        self.line(format!("//! `{}`: {key}{versions}, {flex}.", m.name));
        self.line("//!");
        self.line(crate::tables::note(&m.release).trim_end());
        self.line("");
        let mut wire = vec!["Decoder", "Encoder"];
        let fields = self.structs.iter().flat_map(|s| s.fields);
        let types: Vec<Type> = fields.map(|f| Type::parse(&f.ty)).collect();
        let records = types.contains(&Type::Records);
        if records && m.kind == Kind::Response {
            wire.push("RecordChunks");
        }
        wire.extend(["VersionRange", "WireError"]);
        let wire = wire.join(", ");
        if types.contains(&Type::Bytes) || records && m.kind != Kind::Response {
            self.line("use bytes::Bytes;");
        }
        let uuid = Type::Fixed("uuid");
        if types.contains(&uuid) || types.contains(&Type::Array(Box::new(uuid))) {
            self.line("use uuid::Uuid;");
        }
        self.line("");
        self.line(format!("use crate::wire::{{{wire}}};"));
    }

    fn structure(&mut self, index: usize) {
        let name = self.structs[index].name.clone();
        let top = index == 0;
        let (fields, range) = (self.structs[index].fields, self.structs[index].range);
        let fields: Vec<&Field> = fields.iter().filter(|f| !range.and(f.versions()).is_empty()).collect();
        self.line("");
        if top {
            self.line(format!("/// {}: {}.", name, show(range)));
        } else {
            self.line(format!("/// Part of [`{}`]: {}.", self.message.name, show(range)));
        }
        let derived = fields.iter().all(|f| self.default_is_derived(f));
        let default = if derived { ", Default" } else { "" };
        self.line(format!("#[derive(Debug, Clone, PartialEq{default})]"));
        self.line(format!("pub struct {name} {{"));
        for field in &fields {
            self.line(format!("    /// {}.", self.facts(field, range)));
            self.line(format!("    pub {}: {},", names::field(&field.name), self.rust_type(field)));
        }
        self.line("}");
        if !derived {
            self.line("");
            self.line(format!("impl Default for {name} {{"));
            self.line("    fn default() -> Self {");
            self.line("        Self {");
            for field in &fields {
                self.line(format!("            {}: {},", names::field(&field.name), self.default_of(field)));
            }
            self.line("        }\n    }\n}");
        }
        self.line("");
        self.line(format!("impl {name} {{"));
        if top {
            self.constants();
        }
        self.decoder(&name, &fields, range, top);
        self.line("");
        self.encoder(&name, &fields, range, top);
        self.line("}");
    }

    fn constants(&mut self) {
        let m = self.message;
        let Versions { min, max } = m.versions();
        self.line("    /// The versions that the codec knows.");
        self.line(format!("    pub const VERSIONS: VersionRange = VersionRange::new({min}, {max});"));
        if let (Kind::CoordinatorKey | Kind::CoordinatorValue, Some(key)) = (m.kind, m.api_key) {
            self.line("");
            self.line("    /// The number that stands in front of a record's key.");
            self.line(format!("    pub const RECORD_TYPE: i16 = {key};"));
        }
        self.line("");
    }

    /// A field's doc comment: what the schema says of its versions, null and default.
    fn facts(&self, field: &Field, range: Versions) -> String {
        let versions = range.and(field.versions());
        let mut facts = if versions == range { "All versions".to_owned() } else { capital(&show(versions)) };
        if let Some(tag) = field.tag {
            write!(facts, "; tag {tag}").expect("a string grows");
        }
        let nullable = range.and(field.nullable_versions());
        if !nullable.is_empty() {
            if nullable == versions {
                facts.push_str("; may be null");
            } else {
                write!(facts, "; may be null in {}", show(nullable)).expect("a string grows");
            }
        }
        match self.default_of(field).as_str() {
            "None" => facts.push_str("; null by default"),
            text if matches!(Type::parse(&field.ty), Type::Fixed(_)) && !plain_default(text) => {
                write!(facts, "; {text} by default").expect("a string grows");
            }
            _ => {}
        }
        facts
    }

    fn rust_type(&self, field: &Field) -> String {
        let inner = self.rust_name(&Type::parse(&field.ty));
        if field.nullable_versions().is_empty() { inner } else { format!("Option<{inner}>") }
    }

    fn rust_name(&self, ty: &Type) -> String {
        match ty {
            Type::Fixed("uuid") => "Uuid".to_owned(),
            Type::Fixed(name) => (*name).to_owned(),
            Type::String => "String".to_owned(),
            Type::Bytes => "Bytes".to_owned(),
            Type::Records if self.message.kind == Kind::Response => "RecordChunks".to_owned(),
            Type::Records => "Bytes".to_owned(),
            Type::Struct(name) => name.clone(),
            Type::Array(element) => format!("Vec<{}>", self.rust_name(element)),
        }
    }

    /// The default as an expression.
    fn default_of(&self, field: &Field) -> String {
        let nullable = !field.nullable_versions().is_empty();
        let text = match &field.default {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if text == "null" {
            assert!(nullable, "{} cannot be null", field.name);
            return "None".to_owned();
        }
        let value = match Type::parse(&field.ty) {
            Type::Fixed("bool") => if text.is_empty() { "false" } else { &text }.to_owned(),
            Type::Fixed("uuid") => "Uuid::nil()".to_owned(),
            Type::Fixed("f64") => "0.0".to_owned(),
            Type::Fixed(name) => number(&text, name),
            Type::String if text.is_empty() => "String::new()".to_owned(),
            Type::String => format!("{text:?}.to_owned()"),
            Type::Bytes => "Bytes::new()".to_owned(),
            Type::Records if self.message.kind == Kind::Response => "RecordChunks::new()".to_owned(),
            Type::Records => "Bytes::new()".to_owned(),
            Type::Struct(name) => format!("{name}::default()"),
            Type::Array(_) => "Vec::new()".to_owned(),
        };
        if nullable { format!("Some({value})") } else { value }
    }

    fn default_is_derived(&self, field: &Field) -> bool {
        let text = self.default_of(field);
        if field.nullable_versions().is_empty() { plain_default(&text) } else { text == "None" }
    }

    /// A condition that holds when the field differs from its default.
    fn differs(&self, field: &Field) -> String {
        let at = format!("self.{}", names::field(&field.name));
        let default = self.default_of(field);
        let nullable = !field.nullable_versions().is_empty();
        match Type::parse(&field.ty) {
            _ if default == "None" => format!("{at}.is_some()"),
            Type::Fixed("bool") if default == "false" => at,
            Type::Fixed("bool") => format!("!{at}"),
            Type::Fixed("uuid") => format!("!{at}.is_nil()"),
            Type::Fixed(_) => format!("{at} != {default}"),
            Type::Struct(_) => format!("{at} != {default}"),
            Type::String if nullable && default == "Some(String::new())" => {
                format!("{at}.as_deref() != Some(\"\")")
            }
            Type::String if default != "String::new()" => {
                assert!(!nullable, "{}: a default that no schema has yet", field.name);
                format!("{at} != {}", default.trim_end_matches(".to_owned()"))
            }
            _ if nullable => format!("!{at}.as_ref().is_some_and(|x| x.is_empty())"),
            _ => format!("!{at}.is_empty()"),
        }
    }

    /// How compact forms are chosen within `range`: an expression.
    fn flex(&self, range: Versions) -> String {
        match self.message.first_flexible() {
            Some(first) if first <= range.min => "true".to_owned(),
            Some(first) if first <= range.max => format!("v >= {first}"),
            _ => "false".to_owned(),
        }
    }

    fn check_version(&mut self) {
        let name = &self.message.name;
        self.line("        if !Self::VERSIONS.contains(v) {");
        self.line(format!(
            "            return Err(WireError::UnsupportedVersion {{ message: \"{name}\", version: v }});"
        ));
        self.line("        }");
    }

    fn decoder(&mut self, name: &str, fields: &[&Field], range: Versions, top: bool) {
        let gated = self.flex(range).contains('v') || self.uses_version(fields, range);
        let v = if top || gated { "v" } else { "_v" };
        if top {
            self.line("    /// Reads the message as it is in version `v`.");
        }
        let vis = if top { "pub " } else { "" };
        self.line(format!("    {vis}fn decode(d: &mut Decoder, {v}: i16) -> Result<Self, WireError> {{"));
        if top {
            self.check_version();
        }
        let flex = self.flex(range);
        if self.needs_flex(fields, &flex) {
            self.line(format!("        let flex = {flex};"));
        }
        for field in fields.iter().filter(|f| !f.is_tagged()) {
            let local = names::field(&field.name);
            assert!(!matches!(local.as_str(), "d" | "e" | "v" | "flex" | "tag" | "after"), "{local} in {name}");
            let read = self.read_nullable(field, range, &flex);
            let text = match gate(field.versions(), range) {
                None => format!("let {local} = {read};"),
                Some(gate) => {
                    let default = self.default_of(field);
                    format!("let {local} = if {gate} {{ {read} }} else {{ {default} }};")
                }
            };
            self.line(format!("        {text}"));
        }
        self.decode_tags(fields, range, &flex);
        let list = fields.iter().map(|f| names::field(&f.name)).collect::<Vec<_>>().join(", ");
        self.line(format!("        Ok(Self {{ {list} }})"));
        self.line("    }");
    }

    fn decode_tags(&mut self, fields: &[&Field], range: Versions, flex: &str) {
        let tagged: Vec<&&Field> = fields.iter().filter(|f| f.is_tagged()).collect();
        for field in &tagged {
            self.line(format!("        let mut {} = {};", names::field(&field.name), self.default_of(field)));
        }
        if flex == "false" {
            return;
        }
        let gated = flex != "true";
        if gated {
            self.line("if flex {");
        }
        if tagged.is_empty() {
            self.line("d.skip_tags()?;");
        } else {
            self.line("for _ in 0..d.tag_count()? {");
            self.line("let (tag, after) = d.tag()?;");
            self.line("match tag {");
            let inner = range.and(Versions { min: self.message.first_flexible().unwrap_or(0), max: i16::MAX });
            for field in &tagged {
                let gate = gate(field.versions(), inner).map_or(String::new(), |g| format!(" if {g}"));
                let read = self.read_nullable(field, inner, "true");
                let tag = field.tag.expect("only tagged fields are here");
                self.line(format!("{tag}{gate} => {} = {read},", names::field(&field.name)));
            }
            self.line("_ => d.skip_tag(after)?,");
            self.line("}");
            self.line("d.end_tag(tag, after)?;");
            self.line("}");
        }
        if gated {
            self.line("}");
        }
    }

    fn needs_flex(&self, fields: &[&Field], flex: &str) -> bool {
        let lengths =
            fields.iter().any(|f| !f.is_tagged() && !matches!(Type::parse(&f.ty), Type::Fixed(_) | Type::Struct(_)));
        flex.contains('v') && (lengths || flex != "false")
    }

    /// Whether anything in the structure depends on the version.
    fn uses_version(&self, fields: &[&Field], range: Versions) -> bool {
        fields.iter().any(|f| {
            let mixed =
                !f.nullable_versions().is_empty() && gate(f.nullable_versions(), range.and(f.versions())).is_some();
            mixed || gate(f.versions(), range).is_some() || struct_name(&Type::parse(&f.ty)).is_some()
        })
    }

    /// Reads the field in a version that has it.
    fn read_nullable(&self, field: &Field, range: Versions, flex: &str) -> String {
        let text = self.read_plain_or_null(field, range, flex);
        if field.is_tagged() { text.replace("d.nullable_struct(", "d.tagged_nullable_struct(") } else { text }
    }

    fn read_plain_or_null(&self, field: &Field, range: Versions, flex: &str) -> String {
        let ty = Type::parse(&field.ty);
        let flex = if flex.contains('v') { "flex" } else { flex };
        let nullable = field.nullable_versions();
        if nullable.is_empty() {
            return self.read(&ty, flex, false);
        }
        match gate(nullable, range.and(field.versions())) {
            None => self.read(&ty, flex, true),
            Some(gate) => {
                let (some, plain) = (self.read(&ty, flex, true), self.read(&ty, flex, false));
                format!("if {gate} {{ {some} }} else {{ Some({plain}) }}")
            }
        }
    }

    fn read(&self, ty: &Type, flex: &str, nullable: bool) -> String {
        let null = if nullable { "nullable_" } else { "" };
        let records = |text: String| match (self.message.kind, nullable) {
            (Kind::Response, true) => format!("{text}.map(RecordChunks::from)"),
            (Kind::Response, false) => format!("{text}.into()"),
            _ => text,
        };
        match ty {
            Type::Fixed(name) => {
                assert!(!nullable, "{name} is never null");
                format!("d.{name}()?")
            }
            Type::String => format!("d.{null}string({flex})?"),
            Type::Bytes => format!("d.{null}bytes({flex})?"),
            Type::Records => records(format!("d.{null}bytes({flex})?")),
            Type::Struct(name) if nullable => format!("d.nullable_struct(v, {name}::decode)?"),
            Type::Struct(name) => format!("{name}::decode(d, v)?"),
            Type::Array(element) => match element.as_ref() {
                Type::Fixed(name) => format!("d.{null}{name}_array({flex})?"),
                Type::String => format!("d.{null}string_array({flex})?"),
                Type::Struct(name) => {
                    let least = self.least(name);
                    format!("d.{null}array({flex}, v, {least}, {name}::decode)?")
                }
                other => panic!("no arrays of {other:?} yet"),
            },
        }
    }

    /// The fewest bytes that a structure takes in any of its versions.
    fn least(&self, name: &str) -> usize {
        let s = self.structs.iter().find(|s| s.name == name).expect("structures were collected");
        let first_flexible = self.message.first_flexible();
        (s.range.min..=s.range.max)
            .map(|v| {
                let flex = first_flexible.is_some_and(|first| v >= first);
                let fields = s.fields.iter().filter(|f| !f.is_tagged() && f.versions().contains(v));
                let sum: usize =
                    fields.map(|f| self.least_of(&Type::parse(&f.ty), flex, f.nullable_versions().contains(v))).sum();
                sum + usize::from(flex)
            })
            .min()
            .filter(|least| *least > 0)
            .expect("a structure takes bytes")
    }

    fn least_of(&self, ty: &Type, flex: bool, nullable: bool) -> usize {
        match ty {
            Type::Fixed("bool" | "i8") => 1,
            Type::Fixed("i16" | "u16") => 2,
            Type::Fixed("i32") => 4,
            Type::Fixed("uuid") => 16,
            Type::Fixed(_) => 8,
            Type::Struct(_) if nullable => 1,
            Type::Struct(name) => self.least(name),
            _ if flex => 1,
            Type::String => 2,
            Type::Bytes | Type::Records | Type::Array(_) => 4,
        }
    }

    fn encoder(&mut self, name: &str, fields: &[&Field], range: Versions, top: bool) {
        let flex = self.flex(range);
        let writes = !fields.is_empty() || flex != "false";
        let guarded = fields.iter().any(|f| !f.ignorable && gate(f.versions(), range).is_some());
        let gated = flex.contains('v') || guarded || self.uses_version(fields, range);
        let v = if top || gated { "v" } else { "_v" };
        if top {
            self.line(
                "    /// Writes the message as it is in version `v`. Fails if a field is set that the version does",
            );
            self.line("    /// not have, unless the schema lets it be dropped.");
        }
        let vis = if top { "pub " } else { "" };
        let e = if writes { "e" } else { "_e" };
        self.line(format!("    {vis}fn encode(&self, {e}: &mut Encoder, {v}: i16) -> Result<(), WireError> {{"));
        if top {
            self.check_version();
        }
        if self.needs_flex(fields, &flex) {
            self.line(format!("        let flex = {flex};"));
        }
        for field in fields {
            let write = if field.is_tagged() {
                String::new()
            } else {
                self.write_nullable(field, range, if flex.contains('v') { "flex" } else { &flex })
            };
            let Some(gate) = gate(field.versions(), range) else {
                if !write.is_empty() {
                    self.line(write);
                }
                continue;
            };
            match (write.is_empty(), field.ignorable) {
                (false, true) => self.line(format!("if {gate} {{ {write} }}")),
                (true, true) => {}
                (empty, false) => {
                    let error = format!(
                        "return Err(WireError::UnsupportedField {{ field: \"{name}.{}\", version: v }});",
                        field.name
                    );
                    let differs = self.differs(field);
                    let otherwise = format!("if {differs} {{ {error} }}");
                    if empty {
                        self.line(format!("if {} && {differs} {{ {error} }}", not(&gate)));
                    } else {
                        self.line(format!("if {gate} {{ {write} }} else {otherwise}"));
                    }
                }
            }
        }
        self.encode_tags(fields, range, &flex);
        self.line("        Ok(())");
        self.line("    }");
    }

    fn encode_tags(&mut self, fields: &[&Field], range: Versions, flex: &str) {
        if flex == "false" {
            return;
        }
        let gated = flex != "true";
        let mut tagged: BTreeMap<u32, &Field> = BTreeMap::new();
        for field in fields {
            if let Some(tag) = field.tag {
                assert!(tagged.insert(tag, field).is_none(), "tag {tag} is used twice");
            }
        }
        if gated {
            self.line("if flex {");
        }
        if tagged.is_empty() {
            self.line("e.uvarint(0);");
        } else {
            let inner = range.and(Versions { min: self.message.first_flexible().unwrap_or(0), max: i16::MAX });
            for (tag, field) in &tagged {
                let differs = self.differs(field);
                let gate = gate(field.versions(), inner).map_or(String::new(), |g| format!("{g} && "));
                self.line(format!("let tag{tag} = {gate}{differs};"));
            }
            let count: Vec<String> = tagged.keys().map(|tag| format!("u32::from(tag{tag})")).collect();
            self.line(format!("e.uvarint({});", count.join(" + ")));
            for (tag, field) in &tagged {
                let write = self.write_nullable(field, inner, "true");
                self.line(format!("if tag{tag} {{ let mark = e.begin_tag({tag}); {write} e.end_tag(mark)?; }}"));
            }
        }
        if gated {
            self.line("}");
        }
    }

    /// Writes the field in a version that has it.
    fn write_nullable(&self, field: &Field, range: Versions, flex: &str) -> String {
        let text = self.write_plain_or_null(field, range, flex);
        if field.is_tagged() { text.replace("e.nullable_struct(", "e.tagged_nullable_struct(") } else { text }
    }

    fn write_plain_or_null(&self, field: &Field, range: Versions, flex: &str) -> String {
        let ty = Type::parse(&field.ty);
        let at = format!("self.{}", names::field(&field.name));
        let nullable = field.nullable_versions();
        if nullable.is_empty() {
            return write(&ty, &at, flex);
        }
        match gate(nullable, range.and(field.versions())) {
            None => self.write_option(&ty, &at, flex),
            Some(gate) => {
                let some = self.write_option(&ty, &at, flex);
                let plain = write(&ty, "x", flex).replace("&x", "x");
                format!(
                    "if {gate} {{ {some} }} else {{
                        let x = {at}.as_ref().ok_or(WireError::UnexpectedNull)?; {plain}
                    }}"
                )
            }
        }
    }

    fn write_option(&self, ty: &Type, at: &str, flex: &str) -> String {
        let records = if self.message.kind == Kind::Response { "records" } else { "bytes" };
        match ty {
            Type::Fixed(name) => panic!("{name} is never null"),
            Type::String => format!("e.nullable_string({flex}, {at}.as_deref())?;"),
            Type::Bytes => format!("e.nullable_bytes({flex}, {at}.as_ref())?;"),
            Type::Records => format!("e.nullable_{records}({flex}, {at}.as_ref())?;"),
            Type::Struct(name) => format!("e.nullable_struct(v, {at}.as_ref(), {name}::encode)?;"),
            Type::Array(element) => match element.as_ref() {
                Type::Fixed(name) => format!("e.nullable_{name}_array({flex}, {at}.as_deref())?;"),
                Type::String => format!("e.nullable_string_array({flex}, {at}.as_deref())?;"),
                Type::Struct(name) => format!("e.nullable_array({flex}, v, {at}.as_deref(), {name}::encode)?;"),
                other => panic!("no arrays of {other:?} yet"),
            },
        }
    }
}

fn write(ty: &Type, at: &str, flex: &str) -> String {
    match ty {
        Type::Fixed(name) => format!("e.{name}({at});"),
        Type::String => format!("e.string({flex}, &{at})?;"),
        Type::Bytes => format!("e.bytes({flex}, &{at})?;"),
        Type::Records => format!("e.records({flex}, &{at})?;"),
        Type::Struct(_) => format!("{at}.encode(e, v)?;"),
        Type::Array(element) => match element.as_ref() {
            Type::Fixed(name) => format!("e.{name}_array({flex}, &{at})?;"),
            Type::String => format!("e.string_array({flex}, &{at})?;"),
            Type::Struct(name) => format!("e.array({flex}, v, &{at}, {name}::encode)?;"),
            other => panic!("no arrays of {other:?} yet"),
        },
    }
}

fn struct_name(ty: &Type) -> Option<String> {
    match ty {
        Type::Struct(name) => Some(name.clone()),
        Type::Array(element) => struct_name(element),
        Type::Fixed(_) | Type::String | Type::Bytes | Type::Records => None,
    }
}

/// The condition under which a version of `range` has what `versions` have; `None` if all of them do.
fn gate(versions: Versions, range: Versions) -> Option<String> {
    match (versions.min > range.min, versions.max < range.max) {
        (false, false) => None,
        (true, false) => Some(format!("v >= {}", versions.min)),
        (false, true) => Some(format!("v <= {}", versions.max)),
        (true, true) if versions.min == versions.max => Some(format!("v == {}", versions.min)),
        (true, true) => Some(format!("({}..={}).contains(&v)", versions.min, versions.max)),
    }
}

/// The opposite of a [`gate`].
fn not(gate: &str) -> String {
    match gate.split_once(" >= ") {
        Some((v, min)) => format!("{v} < {min}"),
        None => match gate.split_once(" <= ") {
            Some((v, max)) => format!("{v} > {max}"),
            None => format!("!({gate})"),
        },
    }
}

fn plain_default(text: &str) -> bool {
    matches!(
        text,
        "0" | "0.0" | "false" | "String::new()" | "Bytes::new()" | "RecordChunks::new()" | "Vec::new()" | "Uuid::nil()"
    ) || text.ends_with("::default()")
}

fn show(versions: Versions) -> String {
    if versions.min == versions.max {
        format!("version {}", versions.min)
    } else {
        format!("versions {}-{}", versions.min, versions.max)
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

/// A number in the schema as one in Rust.
fn number(text: &str, ty: &str) -> String {
    let value: i64 = match text.strip_prefix("0x") {
        _ if text.is_empty() => 0,
        Some(hex) => i64::from_str_radix(hex, 16).expect("a default is a number"),
        None => text.parse().expect("a default is a number"),
    };
    match (ty, value) {
        ("i32", v) if v == i64::from(i32::MAX) => "i32::MAX".to_owned(),
        ("i32", v) if v == i64::from(i32::MIN) => "i32::MIN".to_owned(),
        ("i64", i64::MAX) => "i64::MAX".to_owned(),
        _ => value.to_string(),
    }
}
