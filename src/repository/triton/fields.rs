//! What becomes of every field of Triton's model configuration: honoured, ignored with a warning, or refused.
//!
//! One table, which a test holds complete against the protocol's descriptors. Values are judged in `read`.

use prost_reflect::{DynamicMessage, Value};

/// The fate of one field, by its path; it covers what lies beneath.
pub(super) struct Field(pub(super) &'static str, pub(super) Fate);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Honoured,
    /// Served without it; the text says what that means.
    Ignored(&'static str),
    /// The model would not answer as its configuration says.
    Refused(&'static str),
}

/// A field that is set, and what is wrong with that.
pub(super) type Refusal = (String, String);

/// The warnings that the fields set in a configuration deserve.
///
/// # Errors
/// When a field is set that cannot be served.
pub(super) fn check(config: &DynamicMessage) -> Result<Vec<String>, Refusal> {
    let mut warnings = Vec::new();
    check_message(config, "", &mut warnings)?;
    Ok(warnings)
}

fn check_message(message: &DynamicMessage, beneath: &str, warnings: &mut Vec<String>) -> Result<(), Refusal> {
    for (field, value) in message.fields() {
        let path = if beneath.is_empty() { field.name().to_owned() } else { format!("{beneath}.{}", field.name()) };
        match fate(&path) {
            Some(Honoured) | None => check_value(value, &path, warnings)?,
            Some(Ignored(meaning)) => {
                let warning = format!("{path} is not honoured: {meaning}");
                if !warnings.contains(&warning) {
                    warnings.push(warning);
                }
            }
            Some(Refused(why)) => return Err((path, format!("not served: {why}"))),
        }
    }
    Ok(())
}

fn check_value(value: &Value, path: &str, warnings: &mut Vec<String>) -> Result<(), Refusal> {
    match value {
        Value::Message(message) => check_message(message, path, warnings),
        Value::List(items) => items.iter().try_for_each(|item| check_value(item, path, warnings)),
        Value::Map(entries) => entries.values().try_for_each(|entry| check_value(entry, path, warnings)),
        _ => Ok(()),
    }
}

pub(super) fn fate(path: &str) -> Option<Fate> {
    FIELDS.iter().find(|field| field.0 == path).map(|field| field.1)
}

use Fate::{Honoured, Ignored, Refused};

pub(super) const FIELDS: &[Field] = &[
    Field("name", Honoured),
    Field("platform", Honoured),
    Field("backend", Honoured),
    Field("runtime", Ignored("the server chooses the engine")),
    Field("version_policy.latest.num_versions", Honoured),
    Field("version_policy.all", Honoured),
    Field("version_policy.specific.versions", Honoured),
    Field("max_batch_size", Honoured),
    Field("input.name", Honoured),
    Field("input.data_type", Honoured),
    Field("input.format", Ignored("tensors are served as the model has them")),
    Field("input.dims", Honoured),
    Field("input.reshape.shape", Honoured),
    Field("input.is_shape_tensor", Refused("shape tensors belong to TensorRT")),
    Field("input.allow_ragged_batch", Refused("requests of different shapes are never merged")),
    Field("input.optional", Ignored("every request must bring the input")),
    Field("input.is_non_linear_format_io", Refused("non-linear tensor formats belong to TensorRT")),
    Field("output.name", Honoured),
    Field("output.data_type", Honoured),
    Field("output.dims", Honoured),
    Field("output.reshape.shape", Honoured),
    Field("output.label_filename", Honoured),
    Field("output.is_shape_tensor", Refused("shape tensors belong to TensorRT")),
    Field("output.is_non_linear_format_io", Refused("non-linear tensor formats belong to TensorRT")),
    Field("batch_input", Refused("the server adds no inputs of its own")),
    Field("batch_output", Refused("outputs are cut by rows only")),
    Field("optimization", Ignored("the engine optimises by itself")),
    Field("dynamic_batching.preferred_batch_size", Honoured),
    Field("dynamic_batching.max_queue_delay_microseconds", Honoured),
    Field("dynamic_batching.preserve_ordering", Honoured),
    Field("dynamic_batching.priority_levels", Honoured),
    Field("dynamic_batching.default_priority_level", Honoured),
    Field("dynamic_batching.default_queue_policy.timeout_action", Honoured),
    Field("dynamic_batching.default_queue_policy.default_timeout_microseconds", Honoured),
    Field("dynamic_batching.default_queue_policy.allow_timeout_override", Honoured),
    Field("dynamic_batching.default_queue_policy.max_queue_size", Honoured),
    Field("dynamic_batching.priority_queue_policy.timeout_action", Honoured),
    Field("dynamic_batching.priority_queue_policy.default_timeout_microseconds", Honoured),
    Field("dynamic_batching.priority_queue_policy.allow_timeout_override", Honoured),
    Field("dynamic_batching.priority_queue_policy.max_queue_size", Honoured),
    Field("sequence_batching", Refused("sequences with state in the server are not supported")),
    Field("ensemble_scheduling.step.model_name", Honoured),
    Field("ensemble_scheduling.step.model_version", Honoured),
    Field("ensemble_scheduling.step.input_map", Honoured),
    Field("ensemble_scheduling.step.output_map", Honoured),
    Field("ensemble_scheduling.step.model_namespace", Refused("models have one name space")),
    Field("ensemble_scheduling.max_inflight_requests", Ignored("every request has one answer, and queues are bounded")),
    Field("instance_group.name", Ignored("instances share one compute pool")),
    Field("instance_group.kind", Honoured),
    Field("instance_group.count", Honoured),
    Field("instance_group.rate_limiter", Ignored("cores are shared in the order of asking")),
    Field("instance_group.gpus", Ignored("models run on the CPU")),
    Field("instance_group.secondary_devices", Ignored("models run on the CPU")),
    Field("instance_group.profile", Ignored("profiles belong to TensorRT")),
    Field("instance_group.passive", Ignored("every instance counts")),
    Field("instance_group.host_policy", Ignored("instances share one compute pool")),
    Field("default_model_filename", Honoured),
    Field("cc_model_filenames", Ignored("models run on the CPU")),
    Field("metric_tags", Ignored("metrics carry model and version only")),
    Field("parameters.string_value", Honoured),
    Field("model_warmup.name", Honoured),
    Field("model_warmup.batch_size", Honoured),
    Field("model_warmup.inputs.data_type", Honoured),
    Field("model_warmup.inputs.dims", Honoured),
    Field("model_warmup.inputs.zero_data", Honoured),
    Field("model_warmup.inputs.random_data", Honoured),
    Field("model_warmup.inputs.input_data_file", Honoured),
    Field("model_warmup.count", Honoured),
    Field("model_operations", Refused("a model never brings code")),
    Field("model_transaction_policy.decoupled", Refused("every request has one answer")),
    Field("model_repository_agents", Refused("models are loaded as they are on disk")),
    Field("response_cache.enable", Honoured),
    Field("model_metrics", Ignored("the buckets of histograms are fixed")),
];

#[cfg(test)]
mod tests {
    use prost_reflect::{Kind, MessageDescriptor};

    use super::*;

    /// Visits every field that holds a value, stopping where the table covers all beneath.
    fn leaves(message: &MessageDescriptor, beneath: &str, visit: &mut dyn FnMut(String)) {
        for field in message.fields() {
            let path = if beneath.is_empty() { field.name().to_owned() } else { format!("{beneath}.{}", field.name()) };
            let kind = match field.kind() {
                Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
                kind => kind,
            };
            match kind {
                Kind::Message(inner) if fate(&path).is_none() && inner.fields().len() > 0 => {
                    leaves(&inner, &path, visit)
                }
                _ => visit(path),
            }
        }
    }

    #[test]
    fn every_field_of_the_protocol_has_a_fate_and_no_other() {
        let mut paths = Vec::new();
        leaves(super::super::descriptor(), "", &mut |path| paths.push(path));
        let mut table: Vec<_> = FIELDS.iter().map(|field| field.0.to_owned()).collect();
        paths.sort();
        table.sort();
        assert_eq!(paths, table);
    }
}
