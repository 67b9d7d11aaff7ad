//! What the configuration may contain, read from the JSON Schema of its structs.
//!
//! One source for four things: the check with its suggestions, `config default`, `config schema` and the reference
//! page. Only what schemars writes for this program's structs is understood; a test walks all of them.

use serde_json::Value;

/// A schema within a document whose `$ref`s point to its `$defs`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schema<'s> {
    root: &'s Value,
    here: &'s Value,
    /// The name of the definition that `here` is, for example `Interval`.
    name: Option<&'s str>,
}

/// What a value has to be.
#[derive(Clone, Debug)]
pub(crate) enum Form<'s> {
    /// A section with fixed keys.
    Section,
    /// A section with keys of the user's choice.
    Map(Schema<'s>),
    List(Schema<'s>),
    /// One of these words.
    Words(Vec<&'s str>),
    Text,
    Integer {
        min: Option<i128>,
        max: Option<i128>,
    },
    Number,
    Bool,
    /// One of several forms.
    Either(Vec<Schema<'s>>),
}

impl<'s> Schema<'s> {
    pub(crate) fn new(root: &'s Value) -> Self {
        Self { root, here: root, name: None }
    }

    fn at(self, here: &'s Value) -> Self {
        let mut schema = Self { here, name: None, ..self };
        // A reference with siblings (`description`, `default`) keeps these for `description()` of the caller.
        while let Some(name) =
            schema.here.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix("#/$defs/"))
        {
            let Some(target) = self.root.get("$defs").and_then(|defs| defs.get(name)) else { break };
            schema = Self { here: target, name: Some(name), ..self };
        }
        schema.without_null()
    }

    /// `Option<T>` as `T`.
    fn without_null(self) -> Self {
        let alternatives = self.alternatives();
        match alternatives.as_slice() {
            [one] if self.here.get("anyOf").is_some() => *one,
            _ => self,
        }
    }

    fn alternatives(self) -> Vec<Self> {
        let list = self.here.get("anyOf").or_else(|| self.here.get("oneOf")).and_then(Value::as_array);
        let not_null = |schema: &&Value| schema.get("type").and_then(Value::as_str) != Some("null");
        list.map(|list| list.iter().filter(not_null).map(|one| self.at(one)).collect()).unwrap_or_default()
    }

    /// The type's name, where it is a definition of its own.
    pub(crate) fn name(self) -> Option<&'s str> {
        self.name
    }

    pub(crate) fn form(self) -> Form<'s> {
        if let Some(words) = self.words() {
            return Form::Words(words);
        }
        if let Some(target) = self.here.get("additionalProperties").filter(|value| value.is_object()) {
            return Form::Map(self.at(target));
        }
        let bound = |key| self.here.get(key).and_then(Value::as_i64).map(i128::from);
        match self.type_name() {
            Some("object") if self.here.get("properties").is_some() => Form::Section,
            Some("object") if self.here.get("additionalProperties") == Some(&Value::Bool(false)) => {
                Form::Section
            }
            Some("array") => match self.here.get("items") {
                Some(items) => Form::List(self.at(items)),
                None => Form::Either(Vec::new()),
            },
            Some("string") => Form::Text,
            Some("integer") => {
                let max = match self.here.get("format").and_then(Value::as_str) {
                    Some("uint8") => i128::from(u8::MAX),
                    Some("uint16") => i128::from(u16::MAX),
                    Some("uint32") => i128::from(u32::MAX),
                    _ => i128::from(u64::MAX),
                };
                Form::Integer { min: bound("minimum"), max: bound("maximum").or(Some(max)) }
            }
            Some("number") => Form::Number,
            Some("boolean") => Form::Bool,
            _ => Form::Either(self.alternatives()),
        }
    }

    fn type_name(self) -> Option<&'s str> {
        match self.here.get("type")? {
            Value::String(name) => Some(name),
            // `Option<bool>` and the like: `["boolean", "null"]`.
            Value::Array(names) => names.iter().filter_map(Value::as_str).find(|name| *name != "null"),
            _ => None,
        }
    }

    fn words(self) -> Option<Vec<&'s str>> {
        if let Some(words) = self.here.get("enum").and_then(Value::as_array) {
            return Some(words.iter().filter_map(Value::as_str).collect());
        }
        if let Some(word) = self.here.get("const").and_then(Value::as_str) {
            return Some(vec![word]);
        }
        // An enum with documented variants: `oneOf` of constants.
        let list = self.here.get("oneOf").and_then(Value::as_array)?;
        let words: Option<Vec<_>> = list.iter().map(|one| self.at(one).words()).collect();
        Some(words?.concat())
    }

    /// The words of an enum with what each means.
    pub(crate) fn documented_words(self) -> Vec<(&'s str, &'s str)> {
        let Some(list) = self.here.get("oneOf").and_then(Value::as_array) else { return Vec::new() };
        let word = |one: &'s Value| {
            let text = one.get("description").and_then(Value::as_str)?;
            Some((one.get("const").and_then(Value::as_str)?, text))
        };
        list.iter().filter_map(word).collect()
    }

    /// The keys of a section, in the order of the struct.
    pub(crate) fn properties(self) -> impl Iterator<Item = Property<'s>> {
        let map = self.here.get("properties").and_then(Value::as_object);
        map.into_iter().flatten().map(move |(key, value)| Property { key, schema: self.at(value), value })
    }

    pub(crate) fn property(self, key: &str) -> Option<Self> {
        self.properties().find(|property| property.key == key).map(|property| property.schema)
    }

    /// The documentation of the type itself.
    pub(crate) fn description(self) -> &'s str {
        self.here.get("description").and_then(Value::as_str).unwrap_or_default()
    }

    /// An example of a value, as users write it.
    pub(crate) fn example(self) -> Option<String> {
        let example = self.example_value()?;
        Some(example.as_str().map_or_else(|| example.to_string(), str::to_owned))
    }

    /// An example of a value.
    pub(crate) fn example_value(self) -> Option<&'s Value> {
        self.here.get("examples").and_then(Value::as_array)?.first()
    }

    /// What a value has to be, in words that fit behind "expected".
    pub(crate) fn expected(self) -> String {
        let example = self.example().map(|example| format!(", for example {example}")).unwrap_or_default();
        match self.form() {
            Form::Section => {
                let keys: Vec<_> = self.properties().map(|property| property.key).collect();
                format!("a section with keys of {}", keys.join(", "))
            }
            Form::Map(_) => "a section of your own keys, each with a value".to_owned(),
            Form::List(items) => format!("a list, each item {}", items.expected()),
            Form::Words(words) => match words.as_slice() {
                [one] => format!("`{one}`"),
                _ => format!("one of {}", words.join(", ")),
            },
            Form::Text => match self.name {
                Some("Interval") => "a duration with a unit, for example 30s, 500ms or 1m30s".to_owned(),
                Some("ByteSize") => "a size with a unit, for example 64MiB".to_owned(),
                _ => format!("a text{example}"),
            },
            Form::Integer { min, max } => match (min, max) {
                (Some(min), Some(max)) if max < i128::from(u32::MAX) => {
                    format!("a whole number from {min} to {max}{example}")
                }
                (Some(min), _) => format!("a whole number, {min} or more{example}"),
                _ => format!("a whole number{example}"),
            },
            Form::Number => format!("a number{example}"),
            Form::Bool => "true or false".to_owned(),
            Form::Either(schemas) => {
                let forms: Vec<_> = schemas.iter().map(|schema| schema.expected()).collect();
                forms.join(", or ")
            }
        }
    }
}

/// A key of a section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Property<'s> {
    pub(crate) key: &'s str,
    pub(crate) schema: Schema<'s>,
    pub(crate) value: &'s Value,
}

impl<'s> Property<'s> {
    /// The documentation of the key; where it has none, of its type.
    pub(crate) fn description(self) -> &'s str {
        match self.value.get("description").and_then(Value::as_str) {
            Some(text) => text,
            None => self.schema.description(),
        }
    }

    /// The default that the struct which holds the key gives it.
    pub(crate) fn default(self) -> Option<&'s Value> {
        self.value.get("default")
    }

    /// An example at the key or at its type.
    pub(crate) fn example(self) -> Option<String> {
        Schema { here: self.value, ..self.schema }.example().or_else(|| self.schema.example())
    }
}
