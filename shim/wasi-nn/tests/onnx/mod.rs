//! Small models, made here.

use prost::Message;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension::Value as Dim};
use tract_onnx::pb::type_proto::{Tensor as TensorType, Value};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto, tensor_proto,
};

pub(crate) const F32: i32 = 1;
pub(crate) const I64: i32 = 7;
pub(crate) const BOOL: i32 = 9;

/// An input or output; a dimension below 0 is left open.
pub(crate) fn value(name: &str, kind: i32, shape: &[i64]) -> ValueInfoProto {
    let dim = shape
        .iter()
        .map(|dim| Dimension {
            value: Some(match dim {
                0.. => Dim::DimValue(*dim),
                _ => Dim::DimParam("N".to_owned()),
            }),
            ..Dimension::default()
        })
        .collect();
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(Value::TensorType(TensorType {
                elem_type: kind,
                shape: Some(TensorShapeProto { dim }),
            })),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

pub(crate) fn weights(name: &str, shape: &[i64], numbers: &[f32]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: shape.to_vec(),
        data_type: F32,
        raw_data: numbers.iter().flat_map(|n| n.to_le_bytes()).collect(),
        ..TensorProto::default()
    }
}

pub(crate) fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
    NodeProto {
        input: names(inputs),
        output: names(outputs),
        op_type: op.to_owned(),
        ..NodeProto::default()
    }
}

pub(crate) fn model(graph: GraphProto) -> Vec<u8> {
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            version: 17,
            ..OperatorSetIdProto::default()
        }],
        graph: Some(graph),
        ..ModelProto::default()
    }
    .encode_to_vec()
}

/// `scores = picture × [[1 0] [0 1] [1 1]] + [10 20]`.
pub(crate) fn linear() -> Vec<u8> {
    model(linear_graph())
}

pub(crate) fn linear_graph() -> GraphProto {
    GraphProto {
        name: "linear".to_owned(),
        node: vec![
            node("MatMul", &["picture", "w"], &["product"]),
            node("Add", &["product", "b"], &["scores"]),
        ],
        initializer: vec![
            weights("w", &[3, 2], &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
            weights("b", &[2], &[10.0, 20.0]),
        ],
        input: vec![value("picture", F32, &[1, 3])],
        output: vec![value("scores", F32, &[1, 2])],
        ..GraphProto::default()
    }
}

/// `sum = left + right` and `product = left * right`, over a batch of any size.
pub(crate) fn two() -> Vec<u8> {
    model(GraphProto {
        name: "two".to_owned(),
        node: vec![
            node("Add", &["left", "right"], &["sum"]),
            node("Mul", &["left", "right"], &["product"]),
        ],
        input: vec![value("left", F32, &[-1, 2]), value("right", F32, &[-1, 2])],
        output: vec![value("sum", F32, &[-1, 2]), value("product", F32, &[-1, 2])],
        ..GraphProto::default()
    })
}

/// One operator from `x`, four numbers, to `y`.
pub(crate) fn single(op: &str, kind: i32) -> Vec<u8> {
    model(GraphProto {
        name: "single".to_owned(),
        node: vec![node(op, &["x"], &["y"])],
        input: vec![value("x", F32, &[4])],
        output: vec![value("y", kind, &[4])],
        ..GraphProto::default()
    })
}

/// A graph inside the branch of another, so many times.
pub(crate) fn nested(depth: usize) -> Vec<u8> {
    let mut graph = GraphProto {
        name: "leaf".to_owned(),
        node: vec![node("Identity", &["x"], &["y"])],
        output: vec![value("y", F32, &[4])],
        ..GraphProto::default()
    };
    for _ in 0..depth {
        let mut branch = node("If", &["c"], &["y"]);
        branch.attribute = ["then_branch", "else_branch"]
            .map(|name| AttributeProto {
                name: name.to_owned(),
                r#type: attribute_proto::AttributeType::Graph as i32,
                g: Some(graph.clone()),
                ..AttributeProto::default()
            })
            .to_vec();
        // Twice the graph each time would not end.
        branch.attribute[1].g = Some(GraphProto {
            name: "leaf".to_owned(),
            node: vec![node("Identity", &["x"], &["y"])],
            output: vec![value("y", F32, &[4])],
            ..GraphProto::default()
        });
        graph = GraphProto {
            name: "branch".to_owned(),
            node: vec![branch],
            output: vec![value("y", F32, &[4])],
            ..GraphProto::default()
        };
    }
    graph.input = vec![value("x", F32, &[4]), value("c", BOOL, &[])];
    model(graph)
}

/// Weights in a file beside the model.
pub(crate) fn external(location: &str) -> Vec<u8> {
    let mut graph = linear_graph();
    graph.initializer[0].raw_data = Vec::new();
    graph.initializer[0].data_location = Some(tensor_proto::DataLocation::External as i32);
    graph.initializer[0].external_data = vec![StringStringEntryProto {
        key: "location".to_owned(),
        value: location.to_owned(),
    }];
    model(graph)
}
