//! `body-patch`: a JSON Patch (RFC 6902) on the body that a hold would have been answered with.

use serde_json::Value;

/// The operations of one patch.
pub const MAX_OPERATIONS: usize = 1_000;
/// How much longer a patch may make a body than both together, since `copy` doubles.
const MAX_GROWTH: usize = 1 << 20;

/// `body` after the operations; a line end at its end stays. The error says which cannot be done.
pub fn apply(body: &[u8], operations: &[Value]) -> Result<Vec<u8>, String> {
    let mut document: Value =
        serde_json::from_slice(body).map_err(|error| format!("the body is no JSON: {error}"))?;
    let mut room = body.len() + MAX_GROWTH;
    for (index, operation) in operations.iter().enumerate() {
        perform(&mut document, operation, &mut room)
            .map_err(|error| format!("operation {index}: {error}"))?;
    }
    let mut patched = serde_json::to_vec(&document).map_err(|error| error.to_string())?;
    let end: &[u8] = match body {
        [.., b'\r', b'\n'] => b"\r\n",
        [.., b'\n'] => b"\n",
        _ => b"",
    };
    patched.extend_from_slice(end);
    Ok(patched)
}

fn perform(document: &mut Value, operation: &Value, room: &mut usize) -> Result<(), String> {
    let text = |key: &str| {
        let text = operation.get(key).and_then(Value::as_str);
        text.ok_or_else(|| format!("there is no {key:?}"))
    };
    let value = || operation.get("value").cloned().ok_or("there is no \"value\"".to_owned());
    let path = text("path")?;
    match text("op")? {
        "add" => add(document, path, value()?),
        "remove" => remove(document, path).map(drop),
        "replace" => {
            *find(document, path)? = value()?;
            Ok(())
        }
        "move" => {
            let from = text("from")?;
            if path.strip_prefix(from).is_some_and(|rest| rest.starts_with('/')) {
                return Err("a value cannot move into itself".to_owned());
            }
            let moved = remove(document, from)?;
            add(document, path, moved)
        }
        "copy" => {
            let copied = find(document, text("from")?)?.clone();
            let length = copied.to_string().len();
            *room = room.checked_sub(length).ok_or("the patch makes the body too long")?;
            add(document, path, copied)
        }
        "test" => match *find(document, path)? == value()? {
            true => Ok(()),
            false => Err(format!("{path:?} is something else")),
        },
        other => Err(format!("there is no operation {other:?}")),
    }
}

fn find<'a>(document: &'a mut Value, path: &str) -> Result<&'a mut Value, String> {
    document.pointer_mut(path).ok_or_else(|| format!("there is no {path:?}"))
}

/// The value that holds the last step of `path`, and that step.
fn parent<'a>(document: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), String> {
    let (above, last) = path.rsplit_once('/').ok_or_else(|| format!("{path:?} is no path"))?;
    Ok((find(document, above)?, last.replace("~1", "/").replace("~0", "~")))
}

fn index(step: &str, most: usize) -> Result<usize, String> {
    let plain = step == "0" || !step.starts_with('0') && step.bytes().all(|b| b.is_ascii_digit());
    let index = step.parse().ok().filter(|index| plain && *index <= most);
    index.ok_or_else(|| format!("there is no element {step:?}"))
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    let (parent, step) = parent(document, path)?;
    match parent {
        Value::Object(members) => {
            members.insert(step, value);
        }
        Value::Array(elements) if step == "-" => elements.push(value),
        Value::Array(elements) => {
            let index = index(&step, elements.len())?;
            elements.insert(index, value);
        }
        _ => return Err(format!("{path:?} leads into neither an object nor an array")),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str) -> Result<Value, String> {
    if path.is_empty() {
        return Ok(std::mem::take(document));
    }
    let missing = || format!("there is no {path:?}");
    let (parent, step) = parent(document, path)?;
    match parent {
        Value::Object(members) => members.remove(&step).ok_or_else(missing),
        Value::Array(elements) if !elements.is_empty() => {
            let index = index(&step, elements.len() - 1)?;
            Ok(elements.remove(index))
        }
        _ => Err(missing()),
    }
}
