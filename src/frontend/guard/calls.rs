//! What every call does, by its path: one table for all routes and all RPCs, read before any router.
//!
//! Whatever is not in it is a matter of operators, so that a call which is added without a row is open to nobody else. Tests
//! hold it to the routers' table and to the compiled descriptors.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use crate::access::{Public, Target, Verb};

/// What a caller needs for a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Need<'a> {
    /// Nothing, where that is open to everyone; else to be let read.
    Open(Public),
    Does(Verb, What<'a>),
}

/// Which model, where the path tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What<'a> {
    Server,
    Model(Cow<'a, str>),
    /// The message or the settings name it: its handler asks.
    SomeModel,
}

/// The two paths that a platform chooses, for health and for predictions.
pub(super) type Vertex = Option<[String; 2]>;

/// `None` for what there is not.
pub(super) fn need<'a>(method: &Method, path: &'a str, vertex: &Vertex) -> Option<Need<'a>> {
    if let Some([health, predict]) = vertex {
        // They stand before all else.
        if path == predict {
            return Some(SOME_RUN);
        }
        if path == health {
            return Some(HEALTH);
        }
    }
    let mut parts = [""; PARTS_MAX];
    let mut count = 0;
    for part in path.strip_prefix('/')?.split('/') {
        *parts.get_mut(count)? = part;
        count += 1;
    }
    match &parts[..count] {
        ["v2", rest @ ..] => v2(rest),
        ["v1", "models", rest @ ..] => v1(method, rest),
        ["metrics"] => Some(Need::Open(Public::Metrics)),
        ["openapi.json"] | ["docs", ..] => Some(DOCS),
        ["ui" | "admin", ..] => Some(OPERATORS),
        [service, call] if service.contains('.') => rpc(service, call),
        other => sagemaker(method, other),
    }
}

fn v2<'a>(parts: &[&'a str]) -> Option<Need<'a>> {
    Some(match parts {
        [] | [""] | ["models"] | ["models", "stats"] => READ,
        ["health", "live" | "ready" | "startup"] => HEALTH,
        ["docs"] | ["docs", "dataplane.json"] => DOCS,
        ["models", _, "trace", "setting"] => OPERATORS,
        ["models", model, "versions", _, rest @ ..] | ["models", model, rest @ ..] => of_model(model, rest)?,
        ["repository", "index"] | ["repository", _, "index"] => READ,
        ["repository", "models", model, "load" | "unload"] | ["repository", _, "models", model, "load" | "unload"] => {
            Need::Does(Verb::Load, named(model))
        }
        ["logging"] | ["trace", "setting"] => OPERATORS,
        ["systemsharedmemory" | "cudasharedmemory", ..] => MEMORY,
        _ => return None,
    })
}

/// What stands behind a model's name, or its version's.
fn of_model<'a>(model: &'a str, rest: &[&str]) -> Option<Need<'a>> {
    let verb = match rest {
        [] | ["ready" | "config" | "stats" | "variants" | "openapi.json" | "docs"] | ["docs", "dataplane.json"] => {
            Verb::Read
        }
        // Layers are measured by running them.
        ["infer" | "generate" | "generate_stream" | "layers"] => Verb::Infer,
        _ => return None,
    };
    Some(Need::Does(verb, named(model)))
}

fn v1<'a>(method: &Method, parts: &[&'a str]) -> Option<Need<'a>> {
    let posts = *method == Method::POST;
    Some(match parts {
        [] => READ,
        // The verb stands behind the name.
        [model] if posts => {
            let What::Model(name) = named(model) else { return None };
            let length = name.rfind(':').unwrap_or(name.len());
            Need::Does(Verb::Infer, What::Model(name[..length].to_owned().into()))
        }
        [model] | [model, "metadata"] => Need::Does(Verb::Read, named(model)),
        [model, "versions" | "labels", _] if posts => Need::Does(Verb::Infer, named(model)),
        [model, "versions" | "labels", _] | [model, "versions" | "labels", _, "metadata"] => {
            Need::Does(Verb::Read, named(model))
        }
        _ => return None,
    })
}

fn sagemaker<'a>(method: &Method, parts: &[&'a str]) -> Option<Need<'a>> {
    Some(match parts {
        ["ping"] => HEALTH,
        ["invocations"] => SOME_RUN,
        ["models"] if *method == Method::POST => SOME_LOAD,
        ["models"] => READ,
        ["models", model] if *method == Method::DELETE => Need::Does(Verb::Load, named(model)),
        ["models", model] => Need::Does(Verb::Read, named(model)),
        ["models", model, "invoke"] => Need::Does(Verb::Infer, named(model)),
        _ => return None,
    })
}

/// The model of a call over gRPC stands in its message.
fn rpc(service: &str, call: &str) -> Option<Need<'static>> {
    Some(match (service, call) {
        ("grpc.health.v1.Health", _) | ("inference.GRPCInferenceService", "ServerLive" | "ServerReady") => HEALTH,
        ("grpc.reflection.v1.ServerReflection" | "grpc.reflection.v1alpha.ServerReflection", _) => READ,
        ("inference.GRPCInferenceService", call) => match call {
            "ServerMetadata" | "RepositoryIndex" => READ,
            "ModelReady" | "ModelMetadata" | "ModelConfig" | "ModelStatistics" => SOME_READ,
            "ModelInfer" | "ModelStreamInfer" => SOME_RUN,
            "RepositoryModelLoad" | "RepositoryModelUnload" => SOME_LOAD,
            "LogSettings" | "TraceSetting" => OPERATORS,
            "SystemSharedMemoryStatus"
            | "SystemSharedMemoryRegister"
            | "SystemSharedMemoryUnregister"
            | "CudaSharedMemoryStatus"
            | "CudaSharedMemoryRegister"
            | "CudaSharedMemoryUnregister" => MEMORY,
            _ => return None,
        },
        ("inference.model_repository.ModelRepositoryService", call) => match call {
            "RepositoryIndex" => READ,
            "RepositoryModelLoad" | "RepositoryModelUnload" => SOME_LOAD,
            _ => return None,
        },
        ("tensorflow.serving.PredictionService", call) => match call {
            "Predict" | "Classify" | "Regress" | "MultiInference" => SOME_RUN,
            "GetModelMetadata" => SOME_READ,
            _ => return None,
        },
        ("tensorflow.serving.ModelService", "GetModelStatus") => SOME_READ,
        ("tensorflow.serving.ModelService", "HandleReloadConfigRequest") => OPERATORS,
        _ => return None,
    })
}

/// As the router reads it.
fn named(part: &str) -> What<'_> {
    What::Model(percent_decode_str(part).decode_utf8_lossy())
}

impl What<'_> {
    pub(super) fn target(&self) -> Target<'_> {
        match self {
            Self::Server => Target::Server,
            Self::Model(name) => Target::Model(name),
            Self::SomeModel => Target::SomeModel,
        }
    }
}

const HEALTH: Need<'static> = Need::Open(Public::Health);
const DOCS: Need<'static> = Need::Open(Public::Docs);
const READ: Need<'static> = Need::Does(Verb::Read, What::Server);
const SOME_READ: Need<'static> = Need::Does(Verb::Read, What::SomeModel);
const SOME_RUN: Need<'static> = Need::Does(Verb::Infer, What::SomeModel);
const SOME_LOAD: Need<'static> = Need::Does(Verb::Load, What::SomeModel);
const MEMORY: Need<'static> = Need::Does(Verb::Memory, What::Server);
pub(super) const OPERATORS: Need<'static> = Need::Does(Verb::Admin, What::Server);
/// The longest path has seven.
const PARTS_MAX: usize = 8;
