//! A server in this process, on ports of its own, with tiny models that are made here.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use kinglet::app::{self, Running};
use kinglet::config::Config;
use kinglet::frontend::Address;
use kinglet::proto::inference::infer_parameter::ParameterChoice;
use kinglet::proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use kinglet::proto::inference::{InferParameter, ModelInferRequest, ModelInferResponse};
use kinglet::proto::onnx::tensor_proto::DataType;
use kinglet::proto::onnx::tensor_shape_proto::{Dimension, dimension};
use kinglet::proto::onnx::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use kinglet::telemetry::config::LogLevel;
use kinglet::telemetry::logs::Logs;
use prost::Message;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint};

use crate::inference_client::grpc_inference_service_client::GrpcInferenceServiceClient;

pub(crate) type Client = GrpcInferenceServiceClient<Channel>;

pub(crate) struct Server {
    pub(crate) running: Running,
    pub(crate) channel: Channel,
    _models: TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let models = repository();
        let mut config = Config::default();
        let own_port = || "127.0.0.1:0".parse().unwrap();
        (config.http.listen, config.grpc.listen, config.admin.listen) = (own_port(), own_port(), own_port());
        config.repository.paths = vec![models.path().to_owned()];
        config.repository.start_with_failures = false;
        change(&mut config);
        let same = config.clone();
        let running = app::start(config, Logs::new(LogLevel::Error), Box::new(move || Ok(same.clone()))).await.unwrap();
        // Where both share a port there is no listener of gRPC's own.
        let channel = match running.address("grpc").or_else(|| running.address("http")).unwrap() {
            Address::Tcp(address) => Endpoint::from_shared(format!("http://{address}")),
            file @ Address::Unix(_) => Endpoint::from_shared(file.to_string()),
        };
        let channel = channel.unwrap().connect().await.unwrap();
        Self { running, channel, _models: models }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.channel.clone())
    }

    /// The page of metrics.
    pub(crate) async fn metrics(&self) -> String {
        self.ask("admin", "GET /metrics", &[], "").await
    }

    /// The whole answer of REST: status line, headers, body.
    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> String {
        self.ask("http", &format!("POST {path}"), headers, body).await
    }

    pub(crate) async fn ask(&self, listener: &str, what: &str, headers: &[(&str, &str)], body: &str) -> String {
        String::from_utf8(self.ask_bytes(listener, what, headers, body).await).unwrap()
    }

    /// As `ask`, where the answer is no text.
    pub(crate) async fn ask_bytes(&self, listener: &str, what: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
        let mut head = format!("{what} HTTP/1.1\r\nhost: kinglet\r\nconnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        match self.running.address(listener).unwrap() {
            Address::Tcp(address) => exchange(TcpStream::connect(address).await.unwrap(), &request).await,
            Address::Unix(path) => exchange(UnixStream::connect(path).await.unwrap(), &request).await,
        }
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Vec<u8> {
    // A server that refuses by the head may close before it has read all.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

/// `add`: sum = left + right, both FP32 `[n, 16]`; `identity_<datatype>`: y = x, `[n, 2]`; `pick`: y = x, FP32 `[n, 2]`, with the
/// variants `double`, y = 2x, and `broken`.
fn repository() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = |name: &str, proto: ModelProto| save(&folder.path().join(name), &proto);
    let rows = |name, kind| value(name, kind, 16);
    model(
        "add",
        graph(
            vec![rows("left", DataType::Float), rows("right", DataType::Float)],
            node("Add", &["left", "right"], "sum"),
            rows("sum", DataType::Float),
        ),
    );
    for (name, kind, _) in DATATYPES {
        let (x, y) = (value("x", *kind, 2), value("y", *kind, 2));
        model(&format!("identity_{}", name.to_lowercase()), graph(vec![x], node("Identity", &["x"], "y"), y));
    }
    let (x, y) = (|| value("x", DataType::Float, 2), || value("y", DataType::Float, 2));
    model("pick", graph(vec![x()], node("Identity", &["x"], "y"), y()));
    let double = graph(vec![x()], node("Add", &["x", "x"], "y"), y());
    for (name, bytes) in [("double", double.encode_to_vec()), ("broken", b"nothing".to_vec())] {
        let variant = folder.path().join("pick/1/variants").join(name);
        fs::create_dir_all(&variant).unwrap();
        fs::write(variant.join("model.onnx"), bytes).unwrap();
    }
    folder
}

/// Every datatype of the protocol, and the bytes of one element; 0 where elements say their own length.
pub(crate) const DATATYPES: &[(&str, DataType, usize)] = &[
    ("BOOL", DataType::Bool, 1),
    ("UINT8", DataType::Uint8, 1),
    ("UINT16", DataType::Uint16, 2),
    ("UINT32", DataType::Uint32, 4),
    ("UINT64", DataType::Uint64, 8),
    ("INT8", DataType::Int8, 1),
    ("INT16", DataType::Int16, 2),
    ("INT32", DataType::Int32, 4),
    ("INT64", DataType::Int64, 8),
    ("FP16", DataType::Float16, 2),
    ("BF16", DataType::Bfloat16, 2),
    ("FP32", DataType::Float, 4),
    ("FP64", DataType::Double, 8),
    ("BYTES", DataType::String, 0),
];

fn save(folder: &Path, model: &ModelProto) {
    fs::create_dir_all(folder.join("1")).unwrap();
    fs::write(folder.join("1/model.onnx"), model.encode_to_vec()).unwrap();
}

fn graph(input: Vec<ValueInfoProto>, node: NodeProto, output: ValueInfoProto) -> ModelProto {
    let graph = GraphProto { name: "g".into(), input, node: vec![node], output: vec![output], ..GraphProto::default() };
    ModelProto {
        ir_version: 8,
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        ..ModelProto::default()
    }
}

fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: operator.into(),
        name: operator.into(),
        input: inputs.iter().map(ToString::to_string).collect(),
        output: vec![output.into()],
        ..NodeProto::default()
    }
}

fn value(name: &str, kind: DataType, width: i64) -> ValueInfoProto {
    let dims = [dimension::Value::DimParam("n".into()), dimension::Value::DimValue(width)];
    let dim = dims.map(|dim| Dimension { value: Some(dim) }).into();
    let tensor = type_proto::Tensor { elem_type: kind.into(), shape: Some(TensorShapeProto { dim }) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)) };
    ValueInfoProto { name: name.into(), r#type: Some(kind) }
}

/// A request to `add` whose elements are all `number` and 1.
pub(crate) fn add(number: f32, id: &str) -> ModelInferRequest {
    let input = |name: &str| InferInputTensor {
        name: name.into(),
        datatype: "FP32".into(),
        shape: vec![1, 16],
        ..InferInputTensor::default()
    };
    ModelInferRequest {
        model_name: "add".into(),
        id: id.into(),
        inputs: vec![input("left"), input("right")],
        raw_input_contents: vec![floats(&[number; 16]), floats(&[1.0; 16])],
        ..ModelInferRequest::default()
    }
}

/// A request to the identity model of a datatype.
pub(crate) fn identity(datatype: &str, shape: &[i64], raw: Bytes) -> ModelInferRequest {
    let input =
        InferInputTensor { name: "x".into(), datatype: datatype.into(), shape: shape.into(), ..Default::default() };
    ModelInferRequest {
        model_name: format!("identity_{}", datatype.to_lowercase()),
        inputs: vec![input],
        raw_input_contents: vec![raw],
        ..ModelInferRequest::default()
    }
}

pub(crate) fn wish(name: &str, parameters: &[(&str, ParameterChoice)]) -> InferRequestedOutputTensor {
    InferRequestedOutputTensor { name: name.into(), parameters: self::parameters(parameters) }
}

pub(crate) fn parameters(list: &[(&str, ParameterChoice)]) -> HashMap<String, InferParameter> {
    let parameter = |choice: &ParameterChoice| InferParameter { parameter_choice: Some(choice.clone()) };
    list.iter().map(|(key, choice)| (key.to_string(), parameter(choice))).collect()
}

pub(crate) fn floats(values: &[f32]) -> Bytes {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The values of an answer's only output.
pub(crate) fn sums(response: &ModelInferResponse) -> Vec<f32> {
    let [raw] = &response.raw_output_contents[..] else { panic!("expected one output, got {response:?}") };
    raw.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}
