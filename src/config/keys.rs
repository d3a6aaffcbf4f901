//! Which settings take effect while the server runs, and which need a restart: one row per key.
//!
//! The rooms keep what the table promises; a test holds its keys to `config/default.toml`.

use super::Config;

/// When a changed value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// On requests and ticks that begin after the reload.
    AtOnce,
    /// On connections that are opened after the reload.
    NextConnection,
    /// On models that are loaded after the reload.
    NextLoad,
    Restart,
}

/// The keys that differ between the running configuration and a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reload {
    pub applied: Vec<&'static str>,
    /// They keep their old values until the server is restarted.
    pub refused: Vec<&'static str>,
}

#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) takes: Takes,
    differs: fn(&Config, &Config) -> bool,
    adopt: fn(&mut Config, &Config),
}

pub(super) fn reload_diff(old: &Config, new: &Config) -> Reload {
    let mut reload = Reload::default();
    for key in ALL.iter().filter(|key| (key.differs)(old, new)) {
        let side = if key.takes == Takes::Restart { &mut reload.refused } else { &mut reload.applied };
        side.push(key.name);
    }
    reload
}

pub(super) fn adopt(running: &mut Config, new: &Config) -> Reload {
    let reload = reload_diff(running, new);
    for key in ALL.iter().filter(|key| key.takes != Takes::Restart) {
        (key.adopt)(running, new);
    }
    reload
}

impl Takes {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AtOnce => "at once",
            Self::NextConnection => "next connection",
            Self::NextLoad => "next load",
            Self::Restart => "restart",
        }
    }
}

macro_rules! keys {
    ($($room:ident.$field:ident: $takes:ident,)*) => {
        &[$(Key {
            name: concat!(stringify!($room), ".", stringify!($field)),
            takes: Takes::$takes,
            differs: |old, new| old.$room.$field != new.$room.$field,
            adopt: |running, new| running.$room.$field.clone_from(&new.$room.$field),
        },)*]
    };
}

pub(super) const ALL: &[Key] = keys! {
    http.listen: Restart,
    http.socket_mode: Restart,
    http.docs: Restart,
    grpc.listen: Restart,
    grpc.socket_mode: Restart,
    grpc.web: Restart,
    admin.browser_hosts: Restart,
    admin.docs: Restart,
    admin.listen: Restart,
    admin.socket_mode: Restart,
    admin.triton_metrics: Restart,
    admin.ui: Restart,
    tls.certificate: Restart,
    tls.key: Restart,
    tls.client_authorities: Restart,
    tls.client_certificates: Restart,
    tls.listeners: Restart,
    tls.version_min: Restart,
    tls.reload_interval: Restart,
    access.tenants_file: Restart,
    access.jwks_file: Restart,
    access.token_issuer: Restart,
    access.token_audience: Restart,
    access.token_tenant_claim: Restart,
    access.token_scopes_claim: Restart,
    access.token_leeway: Restart,
    access.tokens_kept_max: Restart,
    access.public: Restart,
    access.open_control: Restart,
    access.reload_interval: Restart,
    cors.origins: Restart,
    dialects.v1: Restart,
    dialects.inputs_as: Restart,
    dialects.default_model: Restart,
    dialects.sagemaker: Restart,
    dialects.sagemaker_memory_max: Restart,
    dialects.vertex: Restart,
    dialects.vertex_health_route: Restart,
    dialects.vertex_predict_route: Restart,
    limits.body_bytes_max: AtOnce,
    limits.control_bytes_max: AtOnce,
    limits.inflate_ratio_max: AtOnce,
    limits.tensors_max: AtOnce,
    limits.rank_max: AtOnce,
    limits.parameters_max: AtOnce,
    limits.json_depth_max: AtOnce,
    limits.header_bytes_max: NextConnection,
    limits.headers_max: NextConnection,
    limits.header_timeout: NextConnection,
    limits.body_timeout: AtOnce,
    limits.body_rate_min: AtOnce,
    limits.body_rate_window: AtOnce,
    limits.idle_timeout: NextConnection,
    limits.write_timeout: NextConnection,
    limits.connections_max: NextConnection,
    limits.http2_streams_max: NextConnection,
    limits.http2_resets_max: NextConnection,
    limits.http2_keepalive_interval: NextConnection,
    limits.http2_keepalive_timeout: NextConnection,
    limits.stream_in_flight_max: AtOnce,
    shared_memory.enabled: Restart,
    shared_memory.path: Restart,
    shared_memory.prefix: Restart,
    shared_memory.regions_max: AtOnce,
    shared_memory.bytes_max: AtOnce,
    runtime.io_threads: Restart,
    admission.requests_max: AtOnce,
    admission.bytes_max: AtOnce,
    admission.receiving_bytes_max: AtOnce,
    admission.leaving_bytes_max: AtOnce,
    admission.retry_after: AtOnce,
    cache.bytes_max: AtOnce,
    batching.batch_size_max: NextLoad,
    batching.queue_delay_max: NextLoad,
    batching.queue_requests_max: NextLoad,
    batching.queue_bytes_max: NextLoad,
    engine.arena_bytes_max: NextLoad,
    engine.cores: Restart,
    engine.image_bytes_max: NextLoad,
    engine.image_pixels_max: NextLoad,
    engine.inline_time_max: Restart,
    engine.isa_max: NextLoad,
    engine.loop_rounds_max: NextLoad,
    engine.mapped: NextLoad,
    engine.model_bytes_max: NextLoad,
    engine.shape_plans_max: NextLoad,
    engine.spin_time_max: Restart,
    engine.step_file_bytes_max: NextLoad,
    engine.text_bytes_max: NextLoad,
    engine.tuning_time_max: NextLoad,
    engine.warm_up_time_max: NextLoad,
    metering.source: Restart,
    metering.powercap_path: Restart,
    metering.hwmon_path: Restart,
    metering.file_path: Restart,
    metering.window: Restart,
    metering.idle_watts: Restart,
    metering.model_coefficients: Restart,
    metering.model_idle_watts: Restart,
    metering.model_max_watts: Restart,
    metering.reply_headers: Restart,
    metering.reply_parameters: Restart,
    metering.quantum_microjoules: Restart,
    metering.carbon_intensity: Restart,
    metering.carbon_intensity_path: Restart,
    metering.carbon_embodied: Restart,
    metering.carbon_lifetime: Restart,
    budgets.mode: AtOnce,
    budgets.balanced_loss_max: AtOnce,
    budgets.eco_loss_max: AtOnce,
    budgets.power_watts_max: AtOnce,
    budgets.carbon_intensity_max: AtOnce,
    repository.paths: AtOnce,
    repository.control: Restart,
    repository.demand_bytes_max: AtOnce,
    repository.demand_wait_max: Restart,
    repository.demand_waiting_max: Restart,
    repository.pinned: Restart,
    repository.poll_interval: AtOnce,
    repository.settle_time: AtOnce,
    repository.load_at_start: Restart,
    repository.loads_max: Restart,
    repository.loads_waiting_max: AtOnce,
    repository.variants_max: NextLoad,
    repository.ensemble_steps_max: NextLoad,
    repository.temporary_path: AtOnce,
    repository.model_name: Restart,
    repository.start_with_failures: Restart,
    signatures.policy: AtOnce,
    signatures.file: AtOnce,
    signatures.keys: AtOnce,
    signatures.certificates: AtOnce,
    signatures.identities: AtOnce,
    signatures.expired: AtOnce,
    signatures.names: AtOnce,
    signatures.ignored: AtOnce,
    signatures.bytes_max: AtOnce,
    signatures.resources_max: AtOnce,
    drain.delay: AtOnce,
    drain.grace: AtOnce,
    drain.linger: AtOnce,
    telemetry.log_level: AtOnce,
    telemetry.log_format: Restart,
    tracing.endpoint: Restart,
    tracing.protocol: Restart,
    tracing.headers: Restart,
    tracing.sample_ratio: AtOnce,
    tracing.service_name: Restart,
    tracing.resource_attributes: Restart,
    tracing.queue_max: Restart,
    tracing.batch_max: Restart,
    tracing.interval: Restart,
    tracing.timeout: Restart,
    tracing.flush_time_max: Restart,
    tracing.settings_over_network: AtOnce,
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::DEFAULTS;

    #[test]
    fn the_table_has_every_key_once() {
        let rooms: toml::Table = toml::from_str(DEFAULTS).unwrap();
        let fields = |(room, fields): (&String, &toml::Value)| {
            fields.as_table().unwrap().keys().map(|field| format!("{room}.{field}")).collect::<Vec<_>>()
        };
        let wanted: BTreeSet<String> = rooms.iter().flat_map(fields).collect();
        assert_eq!(ALL.iter().map(|key| key.name.to_owned()).collect::<BTreeSet<_>>(), wanted);
        assert_eq!(ALL.len(), wanted.len());
    }

    #[test]
    fn what_cannot_change_is_refused_by_name_and_kept() {
        let old = Config::default();
        let mut new = old.clone();
        new.engine.cores += 1;
        new.admission.requests_max += 1;
        new.batching.batch_size_max += 1;
        new.repository.paths.push("more".into());
        new.http.listen = "127.0.0.1:1".parse().unwrap();
        let wanted = Reload {
            applied: vec!["admission.requests_max", "batching.batch_size_max", "repository.paths"],
            refused: vec!["http.listen", "engine.cores"],
        };
        assert_eq!(old.reload_diff(&new), wanted);

        let mut running = old.clone();
        assert_eq!(running.adopt(&new), wanted);
        assert_eq!(running.admission, new.admission);
        assert_eq!(running.repository, new.repository);
        assert_eq!((&running.engine, &running.http), (&old.engine, &old.http));
        let left = Reload { applied: Vec::new(), refused: wanted.refused };
        assert_eq!(running.reload_diff(&new), left, "what was applied no longer differs");
    }
}
