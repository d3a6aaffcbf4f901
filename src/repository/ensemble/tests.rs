//! Wiring: rows of steps with their signatures, and what becomes of them.

use super::declared::{DeclaredStep, Runs};
use super::wiring::{Miswired, wire};
use crate::engine::{Dim, Signature, TensorSpec};
use crate::tensor::DType;

/// Tensors such as `x n,2; ids:INT64 n`.
fn specs(text: &str) -> Vec<TensorSpec> {
    let spec = |text: &str| {
        let (name, dims) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let (name, dtype) =
            name.split_once(':').map_or((name, DType::F32), |(name, dtype)| (name, dtype.parse().unwrap()));
        let dim = |word: &str| word.parse().map_or_else(|_| Dim::Free(Some(word.to_owned())), Dim::Fixed);
        let dims = dims.split(',').filter(|word| !word.is_empty()).map(dim).collect();
        TensorSpec { name: name.to_owned(), dtype, dims }
    };
    text.split(';').filter(|text| !text.trim().is_empty()).map(spec).collect()
}

/// A step such as `a | x n,2 -> y n,3 | x=in -> y=mid`; with `!` before the maps nothing else is connected.
fn step(text: &str) -> (DeclaredStep, Signature) {
    let parts: Vec<&str> = text.split('|').map(str::trim).collect();
    let (inputs, outputs) = parts[1].split_once("->").unwrap();
    let maps = parts.get(2).copied().unwrap_or("->");
    let is_explicit = maps.starts_with('!');
    let (from, to) = maps.trim_start_matches('!').split_once("->").unwrap();
    let map = |text: &str| {
        let pairs = text.split(',').filter_map(|pair| pair.trim().split_once('='));
        pairs.map(|(own, tensor)| (own.to_owned(), tensor.to_owned())).collect()
    };
    let runs = Runs::File("model.onnx".into());
    let declared = DeclaredStep { name: parts[0].into(), runs, inputs: map(from), outputs: map(to), is_explicit };
    (declared, Signature { inputs: specs(inputs), outputs: specs(outputs) })
}

/// What is wired, as `x[n,2] => a(x)->y => y[-1,3]`, or what is wrong.
fn wired(steps: &[&str], inputs: &[&str], outputs: &[&str]) -> Result<String, String> {
    let (declared, faces): (Vec<_>, Vec<_>) = steps.iter().map(|text| step(text)).unzip();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let faces: Vec<&Signature> = faces.iter().collect();
    let wiring = wire(&declared, &faces, &names(inputs), &names(outputs)).map_err(|Miswired { step, problem }| {
        step.map_or_else(|| problem.clone(), |step| format!("{step}: {problem}"))
    })?;
    let shown = |specs: &[TensorSpec]| {
        let specs: Vec<String> = specs.iter().map(|spec| format!("{}{}", spec.name, spec.shown_dims())).collect();
        specs.join(" ")
    };
    let name = |position: &usize| wiring.tensors[*position].clone();
    let step = |at: &usize| {
        let inputs: Vec<String> = wiring.inputs[*at].iter().map(name).collect();
        let outputs: Vec<String> = wiring.outputs[*at].iter().flatten().map(name).collect();
        format!("{}({})->{}", declared[*at].name, inputs.join(","), outputs.join(","))
    };
    let results: Vec<String> = wiring.results.iter().map(name).collect();
    let names: Vec<&String> = wiring.signature.outputs.iter().map(|spec| &spec.name).collect();
    assert_eq!(results.iter().collect::<Vec<_>>(), names);
    let first: Vec<&String> = wiring.signature.inputs.iter().map(|spec| &spec.name).collect();
    assert_eq!(wiring.tensors.iter().take(first.len()).collect::<Vec<_>>(), first, "inputs come first");
    let steps: Vec<String> = wiring.order.iter().map(step).collect();
    Ok(format!("{} => {} => {}", shown(&wiring.signature.inputs), steps.join(" "), shown(&wiring.signature.outputs)))
}

fn check(steps: &[&str], inputs: &[&str], outputs: &[&str], expected: Result<&str, &str>) {
    assert_eq!(wired(steps, inputs, outputs).as_deref().map_err(String::as_str), expected, "{steps:?}");
}

#[test]
fn what_is_not_said_goes_by_name_and_order() {
    let chain = ["a | x n,2 -> y n,3", "b | input n,3 -> output n,1", "c | z -1,1 -> k:INT64 n"];
    check(&chain, &[], &[], Ok("x[n,2] => a(x)->y b(y)->output c(output)->k => k[-1]"));
    // Names go before order, and the ensemble's own inputs come last.
    let text = [
        "tokens | text:BYTES n -> ids:INT64 n,t; mask:INT64 n,t",
        "model | mask:INT64 b,s; ids:INT64 b,s -> hidden b,s,384",
        "pool | vectors b,s,w; mask:INT64 b,s -> embedding b,w",
    ];
    let shown =
        "text[n] => tokens(text)->ids,mask model(mask,ids)->hidden pool(hidden,mask)->embedding => embedding[-1,-1]";
    check(&text, &[], &[], Ok(shown));
    let same = ["a | x n,2 -> y n,2 | -> y=first", "b | x n,2 -> y n,2"];
    check(&same, &[], &[], Ok("x[n,2] => a(x)->first b(first)->y => y[-1,2]"));
    // A step does not feed itself.
    check(
        &["a | x n -> s n | -> s=scores", "top | scores n -> scores n | -> scores=best"],
        &[],
        &["best"],
        Ok("x[n] => a(x)->scores top(scores)->best => best[-1]"),
    );
    check(
        &["a | x n -> y n", "b | y n; w n -> z n"],
        &["x", "w"],
        &["z", "y"],
        Ok("x[-1] w[-1] => a(x)->y b(y,w)->z => z[-1] y[-1]"),
    );
}

#[test]
fn maps_connect_in_any_order() {
    let steps = [
        "last | a n,2; b n,2 -> c n,2 | !a=left, b=right -> c=OUT",
        "l | x n,2 -> y n,2 | !x=IN -> y=left",
        "r | x n,2 -> y n,2; extra n | !x=IN -> y=right",
    ];
    check(&steps, &["IN"], &["OUT"], Ok("IN[-1,2] => l(IN)->left r(IN)->right last(left,right)->OUT => OUT[-1,2]"));
    // What is narrower on either side holds for the whole.
    check(&["a | x n,t -> y n,t", "b | y n,7 -> z 4,7"], &[], &[], Ok("x[n,t] => a(x)->y b(y)->z => z[4,7]"));
    check(&["a | x n,t -> y n", "b | x 4,7; y n -> z n"], &[], &[], Ok("x[4,7] => a(x)->y b(x,y)->z => z[-1]"));
}

#[test]
fn what_cannot_be_connected_names_the_step() {
    let a = "a | x n,2 -> y n,3";
    check(
        &[a, "b | y n,4 -> z n"],
        &[],
        &[],
        Err("b: input \"y\" expects FP32 [n,4], got \"y\" from step \"a\", which is FP32 [n,3]"),
    );
    check(
        &[a, "b | y:INT64 n,3 -> z n"],
        &[],
        &[],
        Err("b: input \"y\" expects INT64 [n,3], got \"y\" from step \"a\", which is FP32 [n,3]"),
    );
    check(
        &[a, "b | y n,3,1 -> z n"],
        &[],
        &[],
        Err("b: input \"y\" expects FP32 [n,3,1], got \"y\" from step \"a\", which is FP32 [n,3]"),
    );
    check(
        &[a, "b | x:INT64 n,2; y n,3 -> z n"],
        &[],
        &[],
        Err("b: input \"x\" expects INT64 [n,2], got \"x\" as another step takes it, which is FP32 [n,2]"),
    );
    check(
        &[a, "b | u n; v n -> z n"],
        &[],
        &[],
        Err("b: input \"u\" comes from nowhere, expected one of \"x\", \"y\", \"z\""),
    );
    check(
        &[a, "b | u n,3 -> z n | u=why ->"],
        &[],
        &[],
        Err("b: input \"u\" expects one of the tensors \"x\", \"y\", \"z\", got \"why\""),
    );
    check(&[a, "b | u n,3 -> z n | w=y ->"], &[], &[], Err("b: it has no input \"w\", expected one of \"u\""));
    check(&[a, "b | u n,3 -> z n | -> w=y"], &[], &[], Err("b: it has no output \"w\", expected one of \"z\""));
    check(
        &[a, "b | u n,3 -> y n"],
        &[],
        &[],
        Err("b: expected one source of tensor \"y\", got two: it is from step \"a\" and from step \"b\""),
    );
    check(
        &["a | x n -> y n"],
        &["y", "x"],
        &[],
        Err("a: expected one source of tensor \"y\", got two: it is an input of the ensemble and from step \"a\""),
    );
    check(&["a | x n; u n -> y n | !x=x -> y=y"], &["x"], &["y"], Err("a: nothing says where input \"u\" comes from"));
    check(&[a], &["x", "w"], &["y"], Err("input \"w\" is taken by no step"));
    check(&[a], &["x"], &["z"], Err("expected a step that makes output \"z\", got none"));
    check(&[a], &["x"], &["x"], Err("expected a step that makes output \"x\", got none"));
    check(&[a, "b | x n,2 -> z n | x=x ->"], &[], &["z"], Err("a: nothing takes what it makes"));
    let circle = ["a | x n; w n -> y n | !x=IN, w=back -> y=on", "b | u n -> v n | !u=on -> v=back"];
    check(&circle, &["IN"], &["back"], Err("steps wait for one another: \"a\", \"b\""));
    check(
        &["a | x n; w n -> y n | !x=IN, w=self -> y=self"],
        &["IN"],
        &["self"],
        Err("steps wait for one another: \"a\""),
    );
}
