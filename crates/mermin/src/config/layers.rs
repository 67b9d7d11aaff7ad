//! The layers above the file: environment and `--set`, each as a tree of its own.

use super::check::nearest;
use super::problem::{Origin, Problem};
use super::schema::{Form, Schema};
use super::tree::{Node, split_dotted};
use super::yaml;
use std::sync::Arc;

/// What variables of the configuration begin with.
const PREFIX: &str = "MERMIN_";

/// A layer per `MERMIN_…` variable, in the order of their names.
pub(crate) fn environment(
    schema: Schema<'_>,
    variables: impl IntoIterator<Item = (String, String)>,
    problems: &mut Vec<Problem>,
) -> Vec<Node> {
    let mut ours: Vec<_> = variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    ours.sort();
    let mut layers = Vec::new();
    for (name, text) in ours {
        let origin = Origin::Environment(Arc::from(name.as_str()));
        let keys: Vec<_> = name[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
        if leads_to(schema, &keys) {
            value(&text, origin, keys, &mut layers, problems);
        } else {
            let names = variable_names(schema);
            let help = match nearest(&name, names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean {near}? Otherwise: unset {name}"),
                None => format!("unset {name}; a key is written like {PREFIX}PIPELINE__FLOW_WORKERS"),
            };
            let what = format!("no key of the configuration belongs to {name}");
            problems.push(Problem { what, origin: Some(origin), path: String::new(), help });
        }
    }
    layers
}

/// A layer per `--set key.path=value`, in the order given. Unknown keys are left to the check.
pub(crate) fn set(schema: Schema<'_>, texts: &[String], problems: &mut Vec<Problem>) -> Vec<Node> {
    let mut layers = Vec::new();
    for text in texts {
        let origin = Origin::Set(Arc::from(text.as_str()));
        let keys = |path| split_dotted(path).map(|keys| with_own_key(schema, keys));
        let parts = text.split_once('=').and_then(|(path, value)| Some((keys(path)?, value)));
        match parts {
            Some((keys, text)) => value(text, origin, keys, &mut layers, problems),
            None => problems.push(Problem {
                what: format!("`{text}` is not a setting"),
                origin: Some(origin),
                path: String::new(),
                help: "write --set key.path=value, for example --set pipeline.flow_workers=4".to_owned(),
            }),
        }
    }
    layers
}

/// A key of the user's choice may hold dots: in `enrich.names.10.0.0.0/8` it is all that follows `names`.
fn with_own_key(schema: Schema<'_>, mut keys: Vec<String>) -> Vec<String> {
    let mut here = schema;
    for depth in 0..keys.len() {
        if let Form::Map(values) = here.form()
            && !matches!(values.form(), Form::Section | Form::Map(_))
        {
            let own = keys.split_off(depth).join(".");
            keys.push(own);
            break;
        }
        let Some(next) = here.property(&keys[depth]) else { break };
        here = next;
    }
    keys
}

/// The tree of one value: any YAML, so that lists and sections can be given too.
fn value(text: &str, origin: Origin, keys: Vec<String>, layers: &mut Vec<Node>, problems: &mut Vec<Problem>) {
    match yaml::read(text, "") {
        // An empty text is an empty map to the reader; here it is a missing value.
        Ok(node) if !text.trim().is_empty() => layers.push(at(node, &origin).under(&keys)),
        Ok(_) => layers.push(Node::text("", origin).under(&keys)),
        Err(problem) => problems.push(Problem {
            what: problem.what,
            origin: Some(origin),
            path: super::tree::dotted(&keys),
            help: "write the value as in the file; quote what holds `: `, `#`, `*` or `&`".to_owned(),
        }),
    }
}

/// `node` with `origin` everywhere: places within a value of one line help nobody.
fn at(mut node: Node, origin: &Origin) -> Node {
    use super::tree::Value;
    node.origin = origin.clone();
    node.value = match node.value {
        Value::List(items) => Value::List(items.into_iter().map(|item| at(item, origin)).collect()),
        Value::Map(mut entries) => {
            for entry in &mut entries {
                entry.origin = origin.clone();
                entry.node = at(entry.node.clone(), origin);
            }
            Value::Map(entries)
        }
        scalar @ Value::Scalar(_) => scalar,
    };
    node
}

fn leads_to(schema: Schema<'_>, keys: &[String]) -> bool {
    let mut schema = schema;
    for key in keys {
        match schema.property(key) {
            Some(next) => schema = next,
            None => return false,
        }
    }
    true
}

/// Every variable that a key has.
fn variable_names(schema: Schema<'_>) -> Vec<String> {
    fn collect(schema: Schema<'_>, prefix: &str, names: &mut Vec<String>) {
        for property in schema.properties() {
            let name = format!("{prefix}{}", property.key.to_ascii_uppercase());
            if matches!(property.schema.form(), Form::Section) {
                collect(property.schema, &format!("{name}__"), names);
            } else {
                names.push(name);
            }
        }
    }
    let mut names = Vec::new();
    collect(schema, PREFIX, &mut names);
    names
}
