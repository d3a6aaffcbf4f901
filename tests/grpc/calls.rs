//! Unary calls: inference in all its forms, and what the server says about its models.

use bytes::Bytes;
use kinglet::proto::inference::infer_parameter::ParameterChoice;
use kinglet::proto::inference::*;
use tonic::{Code, Request};

use crate::fixture::{DATATYPES, Server, add, identity, parameters, sums, wish};

#[tokio::test]
async fn an_answer_has_everything_clients_read() {
    let server = Server::start().await;
    let answer = server.client().model_infer(add(2.0, "my id")).await.unwrap().into_inner();
    assert_eq!((&answer.model_name[..], &answer.model_version[..], &answer.id[..]), ("add", "1", "my id"));
    let output = &answer.outputs[0];
    assert_eq!((&output.name[..], &output.datatype[..], &output.shape[..]), ("sum", "FP32", &[1, 16][..]));
    assert!(output.contents.is_none() && answer.parameters.is_empty());
    assert_eq!(sums(&answer), [3.0; 16]);
}

#[tokio::test]
async fn every_datatype_is_served() {
    let server = Server::start().await;
    for (datatype, _, size) in DATATYPES {
        let element: Vec<u8> = match size {
            0 => b"\x03\0\0\0abc".into(),
            1 => vec![1],
            size => (0..*size).map(|byte| u8::try_from(byte).unwrap() + 1).collect(),
        };
        for rows in [0, 1, 3] {
            let raw = Bytes::from(element.repeat(rows * 2));
            let shape = [i64::try_from(rows).unwrap(), 2];
            let answer = server.client().model_infer(identity(datatype, &shape, raw.clone())).await.unwrap();
            let answer = answer.into_inner();
            assert_eq!(answer.raw_output_contents, [raw], "{datatype}, {rows} rows");
            assert_eq!((&answer.outputs[0].datatype[..], &answer.outputs[0].shape[..]), (*datatype, &shape[..]));
        }
    }
}

#[tokio::test]
async fn typed_contents_answer_as_raw_ones() {
    let server = Server::start().await;
    let mut typed = add(0.0, "");
    typed.raw_input_contents.clear();
    for (input, value) in typed.inputs.iter_mut().zip([2.0, 1.0]) {
        input.contents = Some(InferTensorContents { fp32_contents: vec![value; 16], ..Default::default() });
    }
    let typed = server.client().model_infer(typed).await.unwrap().into_inner();
    let raw = server.client().model_infer(add(2.0, "")).await.unwrap().into_inner();
    assert_eq!(typed, raw);
}

#[tokio::test]
async fn classes_take_the_place_of_values() {
    let server = Server::start().await;
    let mut request = identity("FP32", &[2, 2], crate::fixture::floats(&[0.5, 2.0, 3.0, 1.0]));
    request.outputs = vec![wish("y", &[("classification", ParameterChoice::Int64Param(1))])];
    let answer = server.client().model_infer(request).await.unwrap().into_inner();
    assert_eq!((&answer.outputs[0].datatype[..], &answer.outputs[0].shape[..]), ("BYTES", &[2, 1][..]));
    assert_eq!(&answer.raw_output_contents[0][..], b"\x0a\x00\x00\x002.000000:1\x0a\x00\x00\x003.000000:0");
}

#[tokio::test]
async fn a_report_is_given_where_asked() {
    let server = Server::start().await;
    let mut request = add(1.0, "");
    request.parameters = parameters(&[("kinglet_report", ParameterChoice::BoolParam(true))]);
    let answer = server.client().model_infer(request).await.unwrap().into_inner();
    let mut keys: Vec<_> = answer.parameters.keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["kinglet_batch_reason", "kinglet_batch_size", "kinglet_compute_us", "kinglet_queue_us"]);
    assert_eq!(answer.parameters["kinglet_batch_size"].parameter_choice, Some(ParameterChoice::Int64Param(1)));
}

type Change<'a> = &'a dyn Fn(&mut ModelInferRequest);

#[tokio::test]
async fn refusals_say_what_came() {
    let server = Server::start().await;
    let refused = async |change: Change<'_>| {
        let mut request = add(1.0, "x");
        change(&mut request);
        let status = server.client().model_infer(request).await.unwrap_err();
        (status.code(), status.message().to_owned())
    };
    let rows: [(Change<'_>, Code, &str); 9] = [
        (&|r| r.model_name = "nope".into(), Code::NotFound, "nope"),
        (&|r| r.model_version = "9".into(), Code::NotFound, "9"),
        (&|r| r.inputs[1].name = "other".into(), Code::InvalidArgument, "other"),
        (&|r| r.outputs = vec![wish("total", &[])], Code::InvalidArgument, "total"),
        (&|r| r.inputs[0].datatype = "INT32".into(), Code::InvalidArgument, "INT32"),
        (&|r| r.inputs[0].shape = vec![1, 15], Code::InvalidArgument, "needs 60 bytes, got 64"),
        (&|r| r.inputs[0].shape = vec![1 << 62, 16], Code::InvalidArgument, "more elements than can be addressed"),
        (
            &|r| r.parameters = parameters(&[("sequence_id", ParameterChoice::Int64Param(7))]),
            Code::Unimplemented,
            "sequence",
        ),
        (
            &|r| {
                r.inputs[0].parameters =
                    parameters(&[("shared_memory_region", ParameterChoice::StringParam("r".into()))])
            },
            Code::Unimplemented,
            "shared_memory",
        ),
    ];
    for (change, code, words) in rows {
        let (got, message) = refused(change).await;
        assert_eq!(got, code, "{message}");
        assert!(message.contains(words), "expected {words:?} in {message:?}");
    }
    assert_eq!(sums(server.client().model_infer(add(1.0, "")).await.unwrap().get_ref()), [2.0; 16]);
}

#[tokio::test]
async fn models_are_described() {
    let server = Server::start().await;
    let mut client = server.client();
    let metadata = client
        .model_metadata(ModelMetadataRequest { name: "add".into(), version: "1".into() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (&metadata.name[..], &metadata.platform[..], &metadata.versions[..]),
        ("add", "onnxruntime_onnx", &["1".to_owned()][..])
    );
    let inputs: Vec<_> = metadata.inputs.iter().map(|i| (&i.name[..], &i.datatype[..], &i.shape[..])).collect();
    assert_eq!(inputs, [("left", "FP32", &[-1, 16][..]), ("right", "FP32", &[-1, 16][..])]);
    let config = client.model_config(ModelConfigRequest { name: "add".into(), ..Default::default() }).await.unwrap();
    let config = config.into_inner().config.unwrap();
    assert!(config.max_batch_size > 1);
    assert_eq!((&config.input[0].dims[..], config.input[0].data_type()), (&[16][..], DataType::TypeFp32));
    for (name, version, ready) in
        [("add", "", true), ("add", "1", true), ("add", "2", false), ("nope", "", false), ("../x", "", false)]
    {
        let asked = ModelReadyRequest { name: name.into(), version: version.into() };
        assert_eq!(client.model_ready(asked).await.unwrap().into_inner().ready, ready, "{name} {version}");
    }
    let unknown = ModelMetadataRequest { name: "nope".into(), ..Default::default() };
    assert_eq!(client.model_metadata(unknown).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn the_server_says_what_it_serves() {
    let server = Server::start().await;
    let mut client = server.client();
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let metadata = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(metadata.name, "kinglet");
    assert!(metadata.extensions.contains(&"statistics".to_owned()));
    let index = client.repository_index(RepositoryIndexRequest { ready: true, ..Default::default() }).await.unwrap();
    let add = index.get_ref().models.iter().find(|model| model.name == "add").unwrap();
    assert_eq!((&add.version[..], &add.state[..], &add.reason[..]), ("1", "READY", ""));
}

#[tokio::test]
async fn statistics_count_rows_and_runs() {
    let server = Server::start().await;
    let mut client = server.client();
    for rows in [1, 3] {
        let raw = Bytes::from(vec![0; rows * 2]);
        client.model_infer(identity("UINT8", &[i64::try_from(rows).unwrap(), 2], raw)).await.unwrap();
    }
    client.model_infer(identity("UINT8", &[1, 3], Bytes::from_static(&[0; 3]))).await.unwrap_err();
    let asked = ModelStatisticsRequest { name: "identity_uint8".into(), ..Default::default() };
    let statistics = client.model_statistics(asked).await.unwrap().into_inner();
    let [only] = &statistics.model_stats[..] else { panic!("{statistics:?}") };
    assert_eq!((&only.version[..], only.inference_count, only.execution_count), ("1", 4, 2));
    let stats = only.inference_stats.as_ref().unwrap();
    let count = |duration: &Option<StatisticDuration>| duration.as_ref().unwrap().count;
    assert_eq!((count(&stats.success), count(&stats.fail), count(&stats.cache_hit)), (2, 1, 0));
    assert_eq!(only.batch_stats.iter().map(|batch| batch.batch_size).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(only.memory_usage[0].r#type, "CPU");
    assert!(only.last_inference > 0);
    let all = client.model_statistics(ModelStatisticsRequest::default()).await.unwrap().into_inner();
    // `add` and `pick`, whose variants count with it.
    assert_eq!(all.model_stats.len(), DATATYPES.len() + 2);
}

#[tokio::test]
async fn extensions_that_are_not_served_are_named() {
    let server = Server::start().await;
    let mut client = server.client();
    let trace = client.trace_setting(TraceSettingRequest::default()).await.unwrap().into_inner();
    assert_eq!(trace.settings["trace_level"].value, ["OFF"], "no collector is configured");
    let memory = client.system_shared_memory_status(SystemSharedMemoryStatusRequest::default()).await.unwrap_err();
    assert_eq!(memory.message(), "the system_shared_memory extension is not served, shared_memory.enabled turns it on");
    let memory = client.cuda_shared_memory_register(CudaSharedMemoryRegisterRequest::default()).await.unwrap_err();
    assert_eq!(memory.message(), "the cuda_shared_memory extension is not served");
    client.cuda_shared_memory_unregister(CudaSharedMemoryUnregisterRequest::default()).await.unwrap();
}

#[tokio::test]
async fn loading_needs_the_explicit_mode() {
    let server = Server::start().await;
    let asked = RepositoryModelLoadRequest { model_name: "add".into(), ..Default::default() };
    assert_eq!(server.client().repository_model_load(asked).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn models_come_and_go_in_the_explicit_mode() {
    let server = Server::with(|config| config.repository.control = kinglet::repository::Control::Explicit).await;
    let mut client = server.client();
    assert_eq!(client.model_infer(add(1.0, "")).await.unwrap_err().code(), Code::Unavailable);
    // KServe's clients put the model's name where Triton's put the repository's.
    let load = RepositoryModelLoadRequest { repository_name: "add".into(), ..Default::default() };
    client.repository_model_load(load).await.unwrap();
    assert_eq!(sums(client.model_infer(add(1.0, "")).await.unwrap().get_ref()), [2.0; 16]);
    let unload = RepositoryModelUnloadRequest { model_name: "add".into(), ..Default::default() };
    client.repository_model_unload(unload).await.unwrap();
    assert!(client.model_infer(add(1.0, "")).await.is_err());
    let unknown = RepositoryModelLoadRequest { model_name: "nope".into(), ..Default::default() };
    assert_eq!(client.repository_model_load(unknown).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn traces_are_taken_over() {
    let server = Server::start().await;
    let mut request = Request::new(add(1.0, ""));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    request.metadata_mut().insert("traceparent", trace.parse().unwrap());
    let answer = server.client().model_infer(request).await.unwrap();
    let told = answer.metadata().get("traceparent").unwrap().to_str().unwrap();
    assert_eq!(told[..36], trace[..36]);
    assert!(server.client().model_infer(add(1.0, "")).await.unwrap().metadata().get("traceparent").is_none());
}

#[tokio::test]
async fn a_parameter_names_the_variant_that_answers() {
    let server = Server::start().await;
    let ask = async |variant: Option<&str>| {
        let mut request = identity("FP32", &[1, 2], crate::fixture::floats(&[3.0, 4.0]));
        request.model_name = "pick".into();
        let text = |name: &str| ParameterChoice::StringParam(name.to_owned());
        request.parameters = variant.map(|name| parameters(&[("variant", text(name))])).unwrap_or_default();
        server.client().model_infer(request).await.map(|answer| sums(answer.get_ref()))
    };
    assert_eq!(ask(None).await.unwrap(), [3.0, 4.0]);
    assert_eq!(ask(Some("double")).await.unwrap(), [6.0, 8.0]);
    for (name, code, words) in [
        (
            "other",
            Code::NotFound,
            "model \"pick\" version 1 has no variant \"other\", expected \"broken\" or \"double\"",
        ),
        ("broken", Code::Unavailable, "variant \"broken\" is not ready: invalid model: not an onnx file"),
        ("a b", Code::InvalidArgument, "variant name \"a b\" is not allowed"),
    ] {
        let status = ask(Some(name)).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(words), "{status}");
    }
    let mut client = server.client();
    let metadata = client.model_metadata(ModelMetadataRequest { name: "pick".into(), version: String::new() });
    let properties = metadata.await.unwrap().into_inner().properties;
    assert_eq!(properties.into_iter().collect::<Vec<_>>(), [("variants".to_owned(), "double".to_owned())]);
    let index = client.repository_index(RepositoryIndexRequest { ready: true, ..Default::default() }).await.unwrap();
    let line = index.get_ref().models.iter().find(|model| model.name == "pick").unwrap();
    assert!(line.reason.starts_with("variants: broken UNAVAILABLE (invalid model: "), "{}", line.reason);
    assert!(line.reason.ends_with("double READY"), "{}", line.reason);
}
