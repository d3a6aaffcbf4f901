//! GetModelMetadata and GetModelStatus.

use prost::Message;
use prost_types::Any;

use super::tensor_proto::{data_type, shape_proto};
use super::walk::{Asked, SIGNATURE, answered_by};
use crate::access::{Caller, Verb};
use crate::engine::{Signature, TensorSpec};
use crate::error::ErrorCode;
use crate::frontend::{Frontend, Refusal};
use crate::infer::VersionId;
use crate::proto::tensorflow::error::Code;
use crate::proto::tensorflow::serving::model_version_status::State as Told;
use crate::proto::tensorflow::serving::{
    GetModelMetadataRequest, GetModelMetadataResponse, GetModelStatusRequest, GetModelStatusResponse,
    ModelVersionStatus, SignatureDefMap, StatusProto,
};
use crate::proto::tensorflow::{SignatureDef, TensorInfo, tensor_info};
use crate::repository::State;
use crate::repository::catalog::Version;

pub(super) async fn metadata(
    frontend: &Frontend,
    caller: &Caller,
    request: GetModelMetadataRequest,
) -> Result<GetModelMetadataResponse, Refusal> {
    let asked = Asked::read(frontend, (caller, Verb::Read), request.model_spec).await?;
    if request.metadata_field.is_empty() {
        return Err(Refusal::invalid(format!("expected {FIELD:?} in metadata_field, got none")));
    }
    if let Some(unknown) = request.metadata_field.iter().find(|field| *field != FIELD) {
        return Err(Refusal::invalid(format!("expected {FIELD:?} in metadata_field, got {unknown:?}")));
    }
    let variant = frontend.own_build(&asked.model, asked.version, None).await?;
    let signatures = [(SIGNATURE.to_owned(), definition(&variant.signature))];
    let map = SignatureDefMap { signature_def: signatures.into() };
    let packed = Any { type_url: TYPE.to_owned(), value: map.encode_to_vec() };
    Ok(GetModelMetadataResponse {
        model_spec: Some(answered_by(&variant)),
        metadata: [(FIELD.to_owned(), packed)].into(),
    })
}

pub(super) async fn status(
    frontend: &Frontend,
    caller: &Caller,
    request: GetModelStatusRequest,
) -> Result<GetModelStatusResponse, Refusal> {
    let asked = Asked::read(frontend, (caller, Verb::Read), request.model_spec).await?;
    // Which versions a model has is known once it is loaded.
    let catalog = frontend.present(&asked.model, None).await?;
    let model = catalog.models.get(&asked.model);
    let versions = model.into_iter().flat_map(|model| model.versions.iter().rev());
    let wanted = versions.filter(|(id, _)| asked.version.is_none_or(|version| version == **id));
    let model_version_status: Vec<ModelVersionStatus> = wanted.map(state).collect();
    if model_version_status.is_empty() {
        let version = asked.version.map(|version| format!(" {version}")).unwrap_or_default();
        let reason = model.map(|model| model.reason.as_str()).filter(|reason| !reason.is_empty());
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let message = format!("model {:?} has no version{version}{reason}", asked.model);
        return Err(Refusal::new(ErrorCode::NotFound, message));
    }
    Ok(GetModelStatusResponse { model_version_status })
}

fn definition(signature: &Signature) -> SignatureDef {
    let tensor = |spec: &TensorSpec| {
        let info = TensorInfo {
            encoding: Some(tensor_info::Encoding::Name(spec.name.clone())),
            dtype: data_type(spec.dtype).into(),
            tensor_shape: Some(shape_proto(spec.wire_dims())),
        };
        (spec.name.clone(), info)
    };
    SignatureDef {
        inputs: signature.inputs.iter().map(tensor).collect(),
        outputs: signature.outputs.iter().map(tensor).collect(),
        method_name: METHOD.to_owned(),
    }
}

/// A version serves while it has a build that does, whatever has become of a newer one.
fn state((id, version): (&VersionId, &Version)) -> ModelVersionStatus {
    let state = match version.state {
        _ if version.ready.is_some() => Told::Available,
        State::Loading => Told::Loading,
        State::Ready => Told::Available,
        State::Unloading => Told::Unloading,
        State::Unavailable => Told::End,
    };
    let failed = state == Told::End && !version.reason.is_empty();
    let status = StatusProto {
        error_code: if failed { Code::Unknown } else { Code::Ok }.into(),
        error_message: version.reason.clone(),
    };
    ModelVersionStatus { version: i64::try_from(id.0).unwrap_or(i64::MAX), state: state.into(), status: Some(status) }
}

const FIELD: &str = "signature_def";
const METHOD: &str = "tensorflow/serving/predict";
const TYPE: &str = "type.googleapis.com/tensorflow.serving.SignatureDefMap";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::engine::Dim;
    use crate::tensor::DType;

    #[test]
    fn a_signature_is_told_with_open_extents() {
        let dims = vec![Dim::Free(None), Dim::Fixed(3)];
        let input = TensorSpec { name: "x".into(), dtype: DType::Bf16, dims };
        let told = definition(&Signature { inputs: vec![input], outputs: Vec::new() });
        let info = &told.inputs["x"];
        let dims: Vec<i64> = info.tensor_shape.iter().flat_map(|shape| &shape.dim).map(|dim| dim.size).collect();
        assert_eq!((info.dtype, &dims[..]), (14, &[-1, 3][..]));
    }

    #[test]
    fn states_are_told_in_their_words() {
        for (ours, reason, expected, code) in [
            (State::Loading, "", Told::Loading, Code::Ok),
            (State::Unloading, "", Told::Unloading, Code::Ok),
            (State::Unavailable, "", Told::End, Code::Ok),
            (State::Unavailable, "no such operator", Told::End, Code::Unknown),
        ] {
            let version = Version { ready: None, state: ours, reason: reason.into(), variants: BTreeMap::new() };
            let told = state((&VersionId(7), &version));
            let status = told.status.clone().unwrap();
            assert_eq!((told.version, told.state(), status.error_code()), (7, expected, code));
            assert_eq!(status.error_message, reason);
        }
    }
}
