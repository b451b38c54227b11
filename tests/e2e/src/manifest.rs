//! Manifests as JSON values: read from YAML files, changed by path.

use serde_json::{Map, Value};

/// The documents of a YAML file, for example of `examples/`.
#[track_caller]
pub fn parse_yaml(text: &str) -> Vec<Value> {
    match serde_saphyr::from_multiple(text) {
        Ok(documents) => documents,
        Err(error) => panic!("this is not YAML: {error}\n{text}"),
    }
}

/// Sets what a JSON pointer names, and makes objects on the way to it. `-` at the end of a list appends.
#[track_caller]
pub fn set_at(document: &mut Value, pointer: &str, value: Value) {
    let mut place = document;
    for part in pointer.split('/').skip(1) {
        let key = part.replace("~1", "/").replace("~0", "~");
        if let Value::Array(items) = place {
            let index = if key == "-" {
                items.push(Value::Null);
                items.len() - 1
            } else {
                key.parse()
                    .unwrap_or_else(|_| panic!("{pointer}: {key:?} is no place in a list"))
            };
            place = &mut items[index];
            continue;
        }
        if place.is_null() {
            *place = if key == "-" {
                Value::Array(vec![Value::Null])
            } else {
                Value::Object(Map::new())
            };
            if key == "-" {
                place = &mut place[0];
                continue;
            }
        }
        place = &mut place[key];
    }
    *place = value;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_path_is_made_where_it_is_missing() {
        let mut document = json!({ "spec": { "containers": [{ "name": "a" }] } });
        set_at(&mut document, "/spec/containers/0/image", json!("b"));
        set_at(&mut document, "/spec/securityContext/runAsUser", json!(7));
        set_at(&mut document, "/spec/volumes/-", json!({ "name": "v" }));
        set_at(&mut document, "/spec/volumes/-", json!({ "name": "w" }));
        set_at(
            &mut document,
            "/metadata/annotations/wasmlet.dev~1engine",
            json!("wasmer"),
        );
        assert_eq!(
            document,
            json!({
                "metadata": { "annotations": { "wasmlet.dev/engine": "wasmer" } },
                "spec": {
                    "containers": [{ "name": "a", "image": "b" }],
                    "securityContext": { "runAsUser": 7 },
                    "volumes": [{ "name": "v" }, { "name": "w" }],
                },
            })
        );
    }

    #[test]
    fn a_file_may_hold_several_documents() {
        let documents = parse_yaml("a: 1\nb: \"1\"\n---\nc: [x, \"yes\"]\n");
        assert_eq!(
            documents,
            [json!({ "a": 1, "b": "1" }), json!({ "c": ["x", "yes"] })]
        );
    }
}
