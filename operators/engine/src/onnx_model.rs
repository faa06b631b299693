//! Reads what matters of an ONNX file: the input, the outputs, and which inputs are weights.
//!
//! Some exports list every weight as a graph input too, which forbids the runtimes to fold constants; the promise here is
//! that the bytes handed on list only the picture. Wire format: <https://protobuf.dev/programming-guides/encoding/>, field
//! numbers: `onnx.proto` of ONNX.

use std::collections::HashSet;

/// A model as far as the engine needs to know it.
pub(crate) struct OnnxModel {
    /// The one input that is not a weight.
    pub input: TensorInfo,
    /// The outputs, in the graph's order.
    pub outputs: Vec<TensorInfo>,
    /// The model with weights dropped from the graph's inputs.
    pub model: Vec<u8>,
}

/// An input or output.
#[derive(Debug, PartialEq)]
pub(crate) struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its shape; `None` for a free dimension. Empty if the file does not say.
    pub dims: Vec<Option<u64>>,
}

impl OnnxModel {
    /// Reads a model file's bytes. The error says what is wrong with them.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let file = fields(bytes).ok_or("it is not an ONNX file")?;
        let graph = last(&file, 7).ok_or("it is not an ONNX file: it has no graph")?;
        let parts = fields(graph).ok_or("its graph is damaged")?;
        let weights = weights(&parts)?;
        let mut inputs = all(&parts, 11).map(port).collect::<Option<Vec<_>>>().ok_or("its inputs are damaged")?;
        inputs.retain(|input| !weights.contains(&input.name));
        let outputs = all(&parts, 12).map(port).collect::<Option<Vec<_>>>().ok_or("its outputs are damaged")?;
        let count = inputs.len();
        let input = inputs.pop().filter(|_| count == 1);
        let input = input.ok_or_else(|| format!("it has {count} inputs, a face detector has one"))?;
        Ok(Self { input, outputs, model: without_weight_inputs(&file, &parts, &weights) })
    }
}

/// The names of the weights.
fn weights(graph: &[Field<'_>]) -> Result<HashSet<String>, String> {
    let mut names = HashSet::new();
    for tensor in all(graph, 5) {
        let tensor = fields(tensor).ok_or("its weights are damaged")?;
        if tensor.iter().any(|field| field.number == 14 && field.varint == 1) {
            return Err(
                "its weights are in a separate file; save it as one file (onnx.save_model does by default)".into()
            );
        }
        names.extend(last(&tensor, 8).map(|name| String::from_utf8_lossy(name).into_owned()));
    }
    Ok(names)
}

/// The file again, without the inputs that are weights. Before IR version 4 they have to be listed, so they stay.
fn without_weight_inputs(file: &[Field<'_>], graph: &[Field<'_>], weights: &HashSet<String>) -> Vec<u8> {
    let listed_by_duty = !file.iter().any(|field| field.number == 1 && field.varint >= 4);
    let is_weight =
        |field: &Field<'_>| field.number == 11 && port(field.bytes).is_some_and(|port| weights.contains(&port.name));
    let kept = graph.iter().filter(|field| listed_by_duty || !is_weight(field));
    let graph: Vec<u8> = kept.flat_map(|field| field.raw).copied().collect();
    let mut model: Vec<u8> =
        file.iter().filter(|field| field.number != 7).flat_map(|field| field.raw).copied().collect();
    model.push((7 << 3) | 2);
    push_varint(&mut model, graph.len() as u64);
    model.extend(graph);
    model
}

/// A `ValueInfoProto`.
fn port(bytes: &[u8]) -> Option<TensorInfo> {
    let info = fields(bytes)?;
    let name = String::from_utf8_lossy(last(&info, 1)?).into_owned();
    let mut dims = Vec::new();
    if let Some(kind) = last(&info, 2) {
        let tensor = fields(last(&fields(kind)?, 1).unwrap_or_default())?;
        for dim in all(&fields(last(&tensor, 2).unwrap_or_default())?, 1) {
            let dim = fields(dim)?;
            dims.push(dim.iter().find(|field| field.number == 1).map(|field| field.varint).filter(|size| *size > 0));
        }
    }
    Some(TensorInfo { name, dims })
}

/// A field of a message: its value is `varint` or `bytes`, by its wire type; `raw` is all of it.
struct Field<'a> {
    number: u64,
    varint: u64,
    bytes: &'a [u8],
    raw: &'a [u8],
}

fn all<'a>(message: &[Field<'a>], number: u64) -> impl Iterator<Item = &'a [u8]> {
    message.iter().filter(move |field| field.number == number).map(|field| field.bytes)
}

fn last<'a>(message: &[Field<'a>], number: u64) -> Option<&'a [u8]> {
    all(message, number).last()
}

/// The fields of a message; `None` if the bytes are not one.
fn fields(message: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut fields = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let start = rest;
        let key = take_varint(&mut rest)?;
        let (mut varint, mut bytes) = (0, &[][..]);
        match key & 7 {
            0 => varint = take_varint(&mut rest)?,
            1 => bytes = take(&mut rest, 8)?,
            2 => {
                let length = usize::try_from(take_varint(&mut rest)?).ok()?;
                bytes = take(&mut rest, length)?;
            }
            5 => bytes = take(&mut rest, 4)?,
            _ => return None,
        }
        let raw = &start[..start.len() - rest.len()];
        fields.push(Field { number: key >> 3, varint, bytes, raw });
    }
    Some(fields)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn push_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ULTRAFACE: &[u8] = include_bytes!("../tests/data/tiny_ultraface.onnx");

    #[test]
    fn weights_leave_the_inputs_and_nothing_else_changes() {
        let graph = OnnxModel::read(ULTRAFACE).expect("a model");
        assert_eq!(graph.input.name, "input");
        assert_eq!(graph.input.dims, [Some(1), Some(3), Some(48), Some(64)]);
        let names: Vec<_> = graph.outputs.iter().map(|output| output.name.as_str()).collect();
        assert_eq!(names, ["scores", "boxes"]);
        assert!(graph.model.len() < ULTRAFACE.len(), "this export lists its weights as inputs");
        let again = OnnxModel::read(&graph.model).expect("still a model");
        assert_eq!((again.input, again.outputs), (graph.input, graph.outputs));
        assert_eq!(again.model, graph.model, "nothing is left to drop");
    }

    #[test]
    fn damaged_bytes_are_an_error_and_never_a_panic() {
        assert!(OnnxModel::read(b"GIF89a").is_err());
        assert!(OnnxModel::read(b"").is_err());
        // The last field is the operator set, which does not matter here.
        for length in 0..ULTRAFACE.len() - 16 {
            assert!(OnnxModel::read(&ULTRAFACE[..length]).is_err(), "cut at {length}");
        }
        for at in 0..ULTRAFACE.len() {
            let mut bytes = ULTRAFACE.to_vec();
            bytes[at] ^= 0xff;
            // Whether it still reads depends on the byte; it must only come back.
            let _ = OnnxModel::read(&bytes);
        }
    }
}
