//! docs/crds.md: the fields of the custom resources, from the definitions themselves.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CrdError {
    #[error("the definitions are not what wasmlet-crds prints")]
    Yaml(#[source] Box<serde_saphyr::Error>),
    #[error("{name} has no version with a schema")]
    NoSchema { name: String },
}

#[derive(Deserialize)]
struct Crd {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
struct Spec {
    group: String,
    names: Names,
    scope: String,
    versions: Vec<Version>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Names {
    kind: String,
    #[serde(default)]
    short_names: Vec<String>,
}

#[derive(Deserialize)]
struct Version {
    name: String,
    schema: VersionSchema,
}

#[derive(Deserialize)]
struct VersionSchema {
    #[serde(rename = "openAPIV3Schema")]
    open_api: Schema,
}

/// The part of a schema that is worth a word.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Schema {
    #[serde(rename = "type")]
    kind: Option<String>,
    description: Option<String>,
    properties: BTreeMap<String, Schema>,
    items: Option<Box<Schema>>,
    additional_properties: Option<Value>,
    required: Vec<String>,
    default: Option<Value>,
    #[serde(rename = "enum")]
    values: Vec<Value>,
    pattern: Option<String>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    max_length: Option<u64>,
    max_items: Option<u64>,
    #[serde(rename = "x-kubernetes-int-or-string")]
    int_or_string: bool,
    #[serde(rename = "x-kubernetes-validations")]
    rules: Vec<Rule>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Rule {
    message: Option<String>,
    rule: String,
}

/// The page.
pub(crate) fn page(yaml: &str) -> Result<String, CrdError> {
    let crds: Vec<Crd> =
        serde_saphyr::from_multiple(yaml).map_err(|error| CrdError::Yaml(Box::new(error)))?;
    let mut page = String::from(
        "# Custom resources\n\nMade from the definitions in `operator/api` by `hack/manifests`. `kubectl explain wasmruntime.spec` says the same on \
         a cluster.\n",
    );
    for crd in &crds {
        let version = crd
            .spec
            .versions
            .first()
            .ok_or_else(|| CrdError::NoSchema {
                name: crd.metadata.name.clone(),
            })?;
        let schema = &version.schema.open_api;
        let short: String = crd
            .spec
            .names
            .short_names
            .iter()
            .map(|name| format!(", `{name}`"))
            .collect();
        // Writing to a String cannot fail.
        let _ = write!(
            page,
            "\n## {kind}\n\n{text}\n\n`{group}/{version}`, {scope}{short}.\n",
            kind = crd.spec.names.kind,
            text = schema.description.as_deref().unwrap_or_default(),
            group = crd.spec.group,
            version = version.name,
            scope = crd.spec.scope.to_lowercase(),
        );
        rules(&mut page, &schema.rules);
        for part in ["spec", "status"] {
            let Some(schema) = schema.properties.get(part) else {
                continue;
            };
            let _ = write!(
                page,
                "\n### {}.{part}\n\n| field | type | default | |\n|---|---|---|---|\n",
                crd.spec.names.kind
            );
            rows(&mut page, "", schema);
        }
    }
    Ok(page)
}

fn rules(page: &mut String, rules: &[Rule]) {
    for rule in rules {
        let _ = write!(
            page,
            "\nRule: {}.\n",
            rule.message.as_deref().unwrap_or(&rule.rule)
        );
    }
}

fn rows(page: &mut String, above: &str, schema: &Schema) {
    for (name, field) in &schema.properties {
        let path = format!("{above}{name}");
        let required = schema.required.contains(name);
        let _ = writeln!(
            page,
            "| `{path}` | {} | {} | {} |",
            cell(&kind(field)),
            default(field, required),
            cell(&text(field))
        );
        rows(page, &format!("{path}."), field);
        if let Some(items) = &field.items {
            rows(page, &format!("{path}[]."), items);
        }
    }
}

fn kind(field: &Schema) -> String {
    if field.int_or_string {
        return "number or string".into();
    }
    if !field.values.is_empty() {
        let values = field.values.iter().filter(|value| !value.is_null());
        let values: Vec<String> = values.map(|value| format!("`{}`", plain(value))).collect();
        return values.join(", ");
    }
    match (field.kind.as_deref(), &field.items) {
        (Some("array"), Some(items)) => format!("list of {}", kind(items)),
        (Some("object"), _) if field.additional_properties.is_some() => "map".into(),
        (Some(kind), _) => kind.into(),
        (None, _) => "any".into(),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn default(field: &Schema, required: bool) -> String {
    match &field.default {
        // Of an object whose fields have defaults of their own.
        Some(Value::Object(fields)) if fields.is_empty() => String::new(),
        Some(value) => format!("`{}`", cell(&plain(value))),
        None if required => "required".into(),
        None => String::new(),
    }
}

fn text(field: &Schema) -> String {
    let mut text = field
        .description
        .as_deref()
        .unwrap_or_default()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let mut limits = Vec::new();
    match (field.minimum, field.maximum) {
        (Some(low), Some(high)) if high > 0.0 => limits.push(format!("{low} to {high}")),
        (Some(low), _) if low != 0.0 => limits.push(format!("at least {low}")),
        _ => {}
    }
    if let Some(count) = field.max_items {
        limits.push(format!("at most {count}"));
    }
    if let Some(length) = field.max_length {
        limits.push(format!("at most {length} characters"));
    }
    if let Some(pattern) = &field.pattern {
        limits.push(format!("`{pattern}`"));
    }
    if !limits.is_empty() {
        let _ = write!(text, " ({})", limits.join(", "));
    }
    for rule in &field.rules {
        let _ = write!(
            text,
            " Rule: {}.",
            rule.message.as_deref().unwrap_or(&rule.rule)
        );
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_has_its_type_default_limits_and_rules() {
        let page = page(
            r#"---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.dev}
spec:
  group: example.dev
  names: {kind: Thing, plural: things, shortNames: [t]}
  scope: Cluster
  versions:
  - name: v1
    schema:
      openAPIV3Schema:
        description: A thing.
        properties:
          spec:
            required: [name]
            type: object
            properties:
              name: {type: string, description: "Its name.", maxLength: 5}
              list:
                type: array
                items: {type: object, properties: {count: {type: integer, default: 3, minimum: 1, maximum: 9}}}
              mode: {type: string, enum: [a, b], x-kubernetes-validations: [{rule: "self == oldSelf", message: "stays"}]}
"#,
        )
        .unwrap();
        assert!(
            page.contains("## Thing\n\nA thing.\n\n`example.dev/v1`, cluster, `t`."),
            "{page}"
        );
        assert!(
            page.contains("| `name` | string | required | Its name. (at most 5 characters) |"),
            "{page}"
        );
        assert!(
            page.contains("| `list[].count` | integer | `3` |  (1 to 9) |"),
            "{page}"
        );
        assert!(
            page.contains("| `mode` | `a`, `b` |  |  Rule: stays. |"),
            "{page}"
        );
    }
}
