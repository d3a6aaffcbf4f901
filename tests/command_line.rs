//! The binary as a person at a terminal meets it: exit codes, and what stands on standard output.
#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

#[path = "support/onnx.rs"]
mod onnx;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

#[test]
fn exit_codes_tell_who_is_at_fault() {
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().to_str().unwrap();
    for (line, code, says) in [
        ("--help", 0, ""),
        ("--version", 0, ""),
        ("completions bash", 0, ""),
        ("inspect Cargo.toml", 1, "Cargo.toml"),
        ("healthcheck --address 127.0.0.1:1 --timeout 500", 1, "no answer from 127.0.0.1:1"),
        ("inspect nowhere", 2, "nowhere"),
        ("bench nowhere", 2, "nowhere"),
        (&format!("inspect {empty}"), 2, "holds no model.onnx"),
        ("serve --repository nowhere", 2, "nowhere"),
        ("serve --check --repository nowhere", 2, "nowhere"),
        ("serve --check --repository README.md", 2, "README"),
        ("serve --config nowhere.toml", 2, "nowhere.toml"),
        ("serve --check --repository models --model-name x", 2, "got a folder of models"),
        ("", 64, "Usage"),
        ("sreve", 64, "serve"),
        ("serve --frobnicate", 64, "--frobnicate"),
        ("serve --http notanaddr", 64, "expected an address with a port"),
        ("serve --admin localhost", 64, "expected an address with a port"),
        ("healthcheck --address 8002", 64, "expected an address with a port"),
        ("inspect models", 2, "got a folder of models"),
        ("bench models/digits --batch 0", 64, "--batch"),
        ("bench models/digits --batch 1,0", 64, "--batch"),
        ("bench models/digits --engine steam", 64, "steam"),
        ("compress models/digits -o target/none --prune 1.5", 64, "expected a number from 0 to 1, got \"1.5\""),
        ("compress models/digits -o target/none --pattern block", 64, "--prune"),
        ("compress models/digits -o target/none --prune 0.5 --pattern stripes", 64, "unknown pattern \"stripes\""),
        ("compress models/digits -o target/none --quantize int2", 64, "unknown format \"int2\", expected int8"),
        ("compress models/digits -o target/none --quantize int8 --ranges wide", 64, "unknown rule \"wide\""),
        ("compress models/digits -o target/none --max-loss 0.1", 64, "--prune"),
        ("compress models/digits -o target/none --target-speedup 0", 64, "expected a number above 0, got \"0\""),
        ("compress models/digits -o target/none --prune 0.5 --keep all", 1, "the model has no layer \"all\""),
        ("compress models/wine -o target/none --prune 0.5", 1, "no layer of constant FP32 weights"),
        ("compress nowhere -o target/none --prune 0.5", 2, "nowhere"),
        ("completions tcsh", 64, "tcsh"),
    ] {
        let output = run(line, &[]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {errors}");
        assert!(errors.contains(says), "{line}: {errors}");
        assert_eq!(errors.is_empty(), code == 0, "{line}: {errors}");
    }
}

#[test]
fn the_environment_is_checked_as_the_file_is() {
    for (name, value) in [("KINGLET__LIMITS__RANK", "8"), ("KINGLET__HTTP__LISTEN", "notanaddr")] {
        let output = run("serve --check --repository models", &[(name, value)]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(name), "{errors}");
    }
}

#[test]
fn the_environment_may_name_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let named = path("named.toml", "[limits]\nrank = 8\n");
    let output = run("serve --check --repository models", &[("KINGLET_CONFIG", &named)]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && errors.contains("named.toml"), "{errors}");
    // What was given goes before it, and an empty name is none.
    let given = format!("serve --check --repository models --config {}", path("given.toml", ""));
    text(&run(&given, &[("KINGLET_CONFIG", &named)]));
    text(&run("serve --check --repository models", &[("KINGLET_CONFIG", "")]));
    // Other commands read it too.
    let output = run("healthcheck", &[("KINGLET_CONFIG", &path("port.toml", "[admin]\nlisten = '127.0.0.1:1'\n"))]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("127.0.0.1:1"));
}

#[test]
fn a_check_loads_every_model() {
    let said = text(&run("serve --check --repository models", &[]));
    assert!(said.starts_with("configuration and repository are valid\n"), "{said}");
    for model in ["digits", "vowels", "wine"] {
        assert!(said.lines().any(|line| line.contains(model) && line.contains("READY")), "{said}");
    }
    assert!(!said.contains("no model is served"), "{said}");
}

#[test]
fn a_check_loads_every_model_also_where_requests_would() {
    let explicit = ("KINGLET__REPOSITORY__CONTROL", "explicit");
    let said = text(&run("serve --check --repository models", &[explicit]));
    assert!(said.lines().any(|line| line.contains("wine") && line.contains("READY")), "{said}");
    let root = tempfile::tempdir().unwrap();
    onnx::write(&root.path().join("broken.onnx"), "StringConcat", "x", &["n"]);
    let output = run(&format!("serve --check --repository {}", root.path().display()), &[explicit]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("operator StringConcat"));
}

#[test]
fn one_model_takes_the_name_it_is_given() {
    let said = text(&run("serve --check --repository models/digits --model-name numbers", &[]));
    assert!(said.contains("numbers") && !said.contains("digits "), "{said}");
}

#[test]
fn inspect_says_what_a_model_is() {
    let said = text(&run("inspect models/digits", &[]));
    for word in ["inputs", "outputs", "FP32", "batching", "engine", "parameters", "MACs/row", "operators"] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn inspect_counts_what_layers_move() {
    let said = text(&run("inspect --layers models/digits", &[]));
    let all = said.lines().find(|line| line.ends_with("all layers")).unwrap();
    let cells: Vec<&str> = all.split_whitespace().collect();
    assert_eq!((cells.len(), &cells[..3]), (15, &["3.034", "3.034", "288522"][..]), "{all}");
}

#[test]
fn inspect_names_the_operator_that_is_in_the_way() {
    let said = text(&run("inspect tests/fixtures/lenet_mnist_int8_dyn.onnx", &[]));
    let batching = said.lines().find(|line| line.starts_with("batching")).unwrap();
    assert!(batching.starts_with("batching  one request at a time: DynamicQuantizeLinear "), "{said}");
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("net.onnx");
    onnx::write(&path, "StringConcat", "x", &["n"]);
    let output = run(&format!("inspect {}", path.display()), &[]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("operator StringConcat the StringConcat is not served"), "{errors}");
}

#[test]
fn inspect_and_bench_find_a_model_as_serve_does() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("m");
    onnx::write(&folder.join("1/other.onnx"), "Relu", "x", &["n", "2"]);
    onnx::write(&folder.join("1/net.onnx"), "Relu", "named", &["n", "2"]);
    std::fs::write(folder.join("config.pbtxt"), "name: 'm'\ndefault_model_filename: 'net.onnx'").unwrap();
    let path = folder.display();
    let said = text(&run(&format!("inspect {path}"), &[]));
    assert!(said.contains("named FP32 [n,2]"), "{said}");
    text(&run(&format!("bench {path} --json --batch 1 --threads 1 --time 1"), &[]));
    std::fs::remove_file(folder.join("1/other.onnx")).unwrap();
    let said = text(&run(&format!("inspect {path}/1"), &[]));
    assert!(said.contains("named FP32 [n,2]"), "{said}");
}

#[test]
fn bench_prints_an_object_for_every_configuration() {
    let said = text(&run("bench models/wine --json --batch 1,3 --threads 1 --time 20", &[]));
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["batch"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 3]);
    for line in &lines {
        assert_eq!(line["threads"], 1);
        assert!(line["engine"].as_str().is_some_and(|engine| !engine.is_empty()), "{line}");
        let [median, min, cpu, throughput] =
            ["median_ms", "min_ms", "cpu_ms", "throughput"].map(|key| line[key].as_f64().unwrap());
        assert!(0.0 < min && min <= median && cpu >= 0.0, "{line}");
        assert!(["load_ms", "memory_mib"].iter().all(|key| line[key].as_f64().unwrap() > 0.0), "{line}");
        let rows = line["batch"].as_f64().unwrap();
        assert!((throughput - rows * 1e3 / median).abs() < throughput * 1e-6, "{line}");
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let said = text(&run(&format!("completions {shell}"), &[]));
        for word in ["serve", "inspect", "healthcheck"] {
            assert!(said.contains(word), "{shell} {word}");
        }
    }
}

#[test]
fn completions_may_be_cut_off() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command("completions bash").stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_request_that_the_start_prints_is_answered() {
    let root = tempfile::tempdir().unwrap();
    // Smaller than the others, but its extents would be a guess; and one whose size fits no memory.
    onnx::write(&root.path().join("free.onnx"), "Identity", "x", &["n", "w"]);
    onnx::write(&root.path().join("huge.onnx"), "Identity", "x", &["1099511627776", "1099511627776"]);
    let answer = answer_to_the_printed_line(root.path());
    assert!(answer.contains("\"name\":\"free\""), "metadata: {answer}");
    onnx::write(&root.path().join("quote.onnx"), "Relu", "it's $HOME", &["n", "3"]);
    let answer = answer_to_the_printed_line(root.path());
    assert!(answer.contains("\"shape\":[1,3]"), "{answer}");
    let answer = answer_to_the_printed_line(Path::new("models"));
    assert!(answer.contains("\"outputs\""), "{answer}");
}

/// Starts a server, sends what its summary suggests, and gives back the answer, which must be 200.
fn answer_to_the_printed_line(repository: &Path) -> String {
    let mut server = Server::start(repository.to_str().unwrap());
    let said = server.said_until("curl ");
    let line = said.lines().last().unwrap().trim();
    // The shell takes the line apart; curl itself may not be there.
    let shell = format!("curl() {{ printf '%s\\n' \"$@\"; }}; {line}");
    let words = text(&Command::new("sh").args(["-c", &shell]).output().unwrap());
    let words: Vec<&str> = words.lines().collect();
    let (host, path) = words[0].strip_prefix("http://").unwrap().split_once('/').unwrap();
    let (method, body) = match words[1..] {
        [] => ("GET", ""),
        ["-d", body] => ("POST", body),
        _ => panic!("{words:?}"),
    };
    let mut connection = TcpStream::connect(host).unwrap();
    let length = body.len();
    let head = format!("{method} /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {length}");
    write!(connection, "{head}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{line}: {answer}");
    assert_eq!(server.terminate(), Some(0));
    answer
}

#[test]
fn a_server_without_models_says_so_last() {
    let empty = tempfile::tempdir().unwrap();
    let path = empty.path().to_str().unwrap();
    let mut server = Server::start(path);
    let said = server.said_until("no model is served");
    let last = said.lines().last().unwrap();
    let wanted =
        format!("no model is served: expected <model>/<version>/model.onnx or .onnx files in {path}, got none");
    assert_eq!(last, wanted);
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn healthcheck_asks_where_the_environment_says() {
    let mut server = Server::start("models/wine");
    let said = server.said_until("metrics, admin");
    let admin = said.lines().last().unwrap().rsplit_once("http://").unwrap().1.to_owned();
    let asked = |line: &str| run(line, &[("KINGLET__ADMIN__LISTEN", &admin)]).status.code();
    assert_eq!(asked("healthcheck"), Some(0), "{admin}");
    assert_eq!(asked("healthcheck --live"), Some(0), "{admin}");
    assert_eq!(asked("healthcheck --address 127.0.0.1:1 --timeout 500"), Some(1), "a flag wins");
    assert_eq!(server.terminate(), Some(0));
    assert_eq!(asked("healthcheck --timeout 500"), Some(1), "the server has ended");
}

/// `kinglet serve` on ports that the system chooses.
struct Server {
    process: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Server {
    fn start(repository: &str) -> Self {
        let line = format!("serve --repository {repository} --http localhost:0 --grpc localhost:0 --admin 127.0.0.1:0");
        let mut process = command(&line).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        Self { process, said }
    }

    /// What stands on standard output up to the first line with a word.
    fn said_until(&mut self, word: &str) -> String {
        let mut said = String::new();
        while !said.lines().last().is_some_and(|line| line.contains(word)) {
            let length = self.said.read_line(&mut said).unwrap();
            assert!(length > 0, "expected {word:?}, the server ended with:\n{said}");
        }
        said
    }

    fn terminate(&mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        self.process.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Only where a test failed before it ended the server.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn run(line: &str, variables: &[(&str, &str)]) -> Output {
    command(line).envs(variables.iter().copied()).output().unwrap()
}

fn command(line: &str) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_kinglet")));
    command.args(line.split_whitespace()).env_clear().stdin(Stdio::null());
    command
}

/// Standard output of a command that succeeded.
fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}
